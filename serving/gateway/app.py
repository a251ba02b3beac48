"""The gateway as an ASGI app: its key, then routing, then the upstreams."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from ...adapters import Registry
from ..api_routes import api_routes, open_paths
from ..health import RegistryHealth
from ..http.addresses import cross_origin
from ..http.errors import model_response
from ..http.keys import HEALTH, ApiKeys, KeyCheck
from ..http.metrics_page import Reading, metrics_page
from ..middleware import AUTO, BASE, Routing, RoutingMiddleware
from ..watcher import RegistryWatcher
from .fleet import Fleet
from .listing import given_names
from .loader import FleetLoader
from .options import GatewayOptions
from .paths import MODELS, PlainPaths
from .proxy import Proxy
from .retry import Retry


def gateway_app(options: GatewayOptions, open_registry: Callable[[], Registry]) -> ASGIApp:
    """Build the app; it asks the upstreams and reads the registry when it starts.

    Routing answers for `base`; each upstream is given its own name of the base model.
    """
    fleet = Fleet(options)
    routing = Routing(base_names=(BASE,), origins=options.origins)
    loader = FleetLoader(fleet, routing, options)
    routing.loader, routing.loaded, routing.resolve = loader, loader.holds, loader.resolve
    following = RegistryWatcher(routing, open_registry, loader.offer)
    keys = ApiKeys([options.key or ""])
    pages = _Pages(fleet, routing, options, following.contact, keys)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await fleet.start()
        await following.start()
        try:
            yield
        finally:
            await following.stop()
            await fleet.stop()

    refusal = "this gateway wants the header 'Authorization: Bearer KEY' with its own key"
    return Router(
        routes=[
            Route(HEALTH, pages.health),
            Route("/metrics", pages.metrics),
            Route("/v1/models", pages.models),
            Route(MODELS + "{name:path}", pages.model),
            *api_routes(routing),
        ],
        default=Proxy(loader, options),
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(PlainPaths),
            *cross_origin(options.origins),
            Middleware(KeyCheck, keys=keys, message=refusal, open_paths=open_paths()),
            Middleware(Retry, limit=routing.max_body_bytes),
            Middleware(RoutingMiddleware, routing=routing),
        ],
    )


class _Pages:
    """What the gateway answers by itself."""

    def __init__(
        self,
        fleet: Fleet,
        routing: Routing,
        options: GatewayOptions,
        contact: RegistryHealth,
        keys: ApiKeys,
    ) -> None:
        self._fleet = fleet
        self._routing = routing
        self._options = options
        self._contact = contact
        self._keys = keys

    async def health(self, request: Request) -> JSONResponse:
        """Whether any upstream is in rotation; to those who have the key also which, and how the registry stands."""
        healthy = bool(self._fleet.healthy())
        body: dict[str, Any] = {"status": "ok" if healthy else "no upstream is in rotation"}
        if self._keys.admit(request.scope):
            body["registry"] = self._contact.report()
            body["upstreams"] = [
                {
                    "url": u.url,
                    "healthy": u.healthy,
                    "reason": u.reason,
                    "outstanding": u.outstanding,
                }
                for u in self._fleet.upstreams
            ]
        return JSONResponse(body, status_code=200 if healthy else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics of routing, and of the upstreams as they are now."""
        upstreams = self._fleet.upstreams
        return metrics_page(
            Reading(
                "traitroute_upstream_healthy",
                "1 in rotation.",
                {u.url: u.healthy for u in upstreams},
                "upstream",
            ),
            Reading(
                "traitroute_upstream_outstanding",
                "Requests not finished.",
                {u.url: u.outstanding for u in upstreams},
                "upstream",
            ),
        )

    async def model(self, request: Request) -> JSONResponse:
        """One model of the list."""
        return model_response(request.path_params["name"], self._cards())

    async def models(self, request: Request) -> JSONResponse:
        """The base model, `auto`, all adapters, and what else the upstreams list: what may be asked for."""
        return JSONResponse({"object": "list", "data": self._cards()})

    def _cards(self) -> list[dict[str, Any]]:
        adapters = sorted(self._routing.adapters)
        ours = [_card(BASE), _card(AUTO), *(_card(name, parent=BASE) for name in adapters)]
        shown = {AUTO, *given_names(BASE, self._options.aliases)}
        others = {name: card for u in self._fleet.healthy() for name, card in u.others.items()}
        more = (_card(n, parent=c.parent) for n, c in sorted(others.items()) if n not in shown)
        return [*ours, *more]


def _card(name: str, parent: str | None = None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "traitroute", "parent": parent}
