"""The gateway as an ASGI app: its API key, then routing, then the upstreams."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ...adapters import Registry
from ..api_routes import api_routes, is_for_tenants, open_paths
from ..experiment import Experiment
from ..http.addresses import cross_origin
from ..http.errors import EXCEPTION_HANDLERS, model_response
from ..http.keys import HEALTH, ApiKeys, KeyCheck
from ..http.metrics_page import Reading, metrics_page
from ..http.tenants import TenantsFile, tenant_of
from ..middleware import RoutingMiddleware
from ..middleware.record import open_metrics
from ..slots import Slots
from ..state import AUTO, BASE, ServerState
from ..watcher import RegistryHealth, RegistryWatcher
from .cards import given_names
from .dialects import MODELS, PlainPaths
from .fleet import Fleet
from .loader import FleetLoader
from .options import GatewayOptions
from .proxy import Proxy, Retry


class Behind(Protocol):
    """Makes the app behind routing; `keyed` says whether clients hold keys of ours."""

    def __call__(self, loader: FleetLoader, options: GatewayOptions, *, keyed: bool) -> ASGIApp:
        """The app for what `loader` knows."""
        ...


def gateway_app(
    options: GatewayOptions,
    open_registry: Callable[[], Registry],
    *,
    behind: Behind = Proxy,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Build the app; it asks the upstreams, by a `transport` or over the network, and reads the registry on its start.

    Routing answers for `base`; each upstream is given its own name of the base model.
    """
    fleet = Fleet(options, transport)
    slots = Slots.from_environment(options.slots, fleet.recent)
    state = ServerState(
        base_names=(BASE,), origins=options.origins, experiment=Experiment.from_environment(), slots=slots
    )
    loader = FleetLoader(fleet, state, options, on_proof=open_metrics().proof)
    state.loader, state.loaded, state.resolve, state.proof = loader, loader.holds, loader.resolve, loader.proof
    watcher = RegistryWatcher(state, open_registry, loader.offer)
    keys = ApiKeys([options.key or ""], TenantsFile.from_environment())
    pages = _Pages(fleet, state, options, watcher.health)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await fleet.start()
        await watcher.start()
        try:
            yield
        finally:
            await watcher.stop()
            await fleet.stop()

    refusal = "this gateway wants the header 'Authorization: Bearer KEY' with its own key"
    app = Starlette(
        routes=[
            Route(HEALTH, pages.health),
            Route("/metrics", pages.metrics),
            Route("/v1/models", pages.models),
            Route(MODELS + "{name:path}", pages.model),
            *api_routes(state),
        ],
        lifespan=lifespan,
        middleware=[
            Middleware(PlainPaths),
            *cross_origin(options.origins),
            Middleware(KeyCheck, keys=keys, message=refusal, open_paths=open_paths(), is_for_tenants=is_for_tenants),
            Middleware(Retry, limit=state.max_body_bytes),
            Middleware(RoutingMiddleware, state=state),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.default = behind(loader, options, keyed=bool(keys))
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True)
class _Pages:
    """The pages that the gateway answers itself."""

    fleet: Fleet
    state: ServerState
    options: GatewayOptions
    registry_health: RegistryHealth

    async def health(self, request: Request) -> JSONResponse:
        """Whether any upstream is in rotation; with the key also which, and whether the registry can be read."""
        healthy = bool(self.fleet.healthy())
        body: dict[str, Any] = {"status": "ok" if healthy else "no upstream is in rotation"}
        if tenant_of(request.scope).may_all:
            body["registry"] = self.registry_health.report()
            fields = ("url", "healthy", "reason", "outstanding")
            body["upstreams"] = [{name: getattr(u, name) for name in fields} for u in self.fleet.upstreams]
        return JSONResponse(body, status_code=200 if healthy else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics of routing, and of the upstreams as they are now."""
        upstreams = self.fleet.upstreams
        healthy = {u.url: u.healthy for u in upstreams}
        outstanding = {u.url: u.outstanding for u in upstreams}
        return metrics_page(
            Reading("traitroute_upstream_healthy", "1 in rotation.", healthy, "upstream"),
            Reading("traitroute_upstream_outstanding", "Requests not finished.", outstanding, "upstream"),
        )

    async def model(self, request: Request) -> JSONResponse:
        """One model of the list."""
        return model_response(request.path_params["name"], self._cards(request))

    async def models(self, request: Request) -> JSONResponse:
        """What may be asked for: the base model, `auto`, all adapters, and what else the upstreams list."""
        return JSONResponse({"object": "list", "data": self._cards(request)})

    def _cards(self, request: Request) -> list[dict[str, Any]]:
        seen = self.state.seen_by(tenant_of(request.scope))
        ours = [_card(BASE), _card(AUTO), *(_card(name, parent=BASE) for name in sorted(seen.adapters))]
        shown = {AUTO, *given_names(BASE, self.options.aliases)}
        others = {name: card for u in self.fleet.healthy() for name, card in u.others.items()}
        more = (_card(n, parent=c.parent) for n, c in sorted(others.items()) if n not in shown and seen.may_name(n))
        return [*ours, *more]


def _card(name: str, parent: str | None = None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "traitroute", "parent": parent}
