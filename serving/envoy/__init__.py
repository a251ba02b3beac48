"""Route for Envoy, and what is built on it (llm-d, AIBrix): an external processor that sends nothing itself.

Envoy shows each request to this server by gRPC, sends on what it gets back, and picks the endpoint after that.
"""

from .server import EnvoyOptions, envoy_app, header_names

__all__ = ["EnvoyOptions", "envoy_app", "header_names"]
