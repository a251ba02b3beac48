"""The gateway: routing in front of OpenAI-compatible servers that cannot be changed."""

from .app import gateway_app
from .options import GatewayOptions, Load, parse_aliases, upstream_urls

__all__ = ["GatewayOptions", "Load", "gateway_app", "parse_aliases", "upstream_urls"]
