"""Routing inside production-stack's router, by `--callbacks traitroute.serving.gateway.production_stack.callbacks`.

Of what that router can be given on its command line, callbacks come first: the module that is named is imported before
the app answers. They themselves, and its request rewriter, would not do. Both run on the event loop, where a decision
does not belong, neither adds a header to an answer, and after the rewriter the model is looked up that was asked for.
So the name `callbacks` puts the gateway in front of the router's app, and stands for no callbacks at all.
"""

import os
from typing import TYPE_CHECKING

from ...adapters import InputError
from .inside import HERE, Inside
from .options import GatewayOptions, parse_aliases

if TYPE_CHECKING:
    from starlette.applications import Starlette

REGISTRY_VARIABLE = "TRAITROUTE_REGISTRY"
ALIASES_VARIABLE = "TRAITROUTE_ALIASES"
"""ADAPTER=NAME or base=NAME, several with commas between: what the engines call them."""
BESIDE = ("/health", "/metrics", "/version", "/engines")
"""The router's own pages, which its probes and dashboards read; its metrics hold ours."""


def __getattr__(name: str) -> None:
    if name != "callbacks":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from vllm_router.app import app  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise ImportError("this is for production-stack's router, whose package vllm_router is not here") from exc
    route(app)


def route(app: "Starlette") -> None:
    """Have the gateway answer in front of `app`, by what the environment says; done once.

    Raises:
        InputError: the environment names no registry, or aliases that are none.
    """
    if any(each.cls is Inside for each in app.user_middleware):
        # The router asks for its callbacks again whenever its configuration changes.
        return
    if not (registry := os.environ.get(REGISTRY_VARIABLE)):
        raise InputError(f"set {REGISTRY_VARIABLE} to the registry's path or URL")
    aliases = parse_aliases(os.environ.get(ALIASES_VARIABLE, "").replace(",", " ").split())
    options = GatewayOptions(upstreams=(HERE,), aliases=aliases)
    app.add_middleware(Inside, registry=registry, options=options, beside=BESIDE)
