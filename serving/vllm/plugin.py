"""The vLLM endpoint plugin: routing, adapters loaded on demand and a model list, inside vLLM's server.

It is loaded where `VLLM_PLUGINS` names `traitroute`. The middleware is added in `attach_router`, which
puts it inside API-key checking; vLLM's `--middleware` would put it outside, where a keyless request
loads adapters. vLLM swallows errors of a plugin's constructor but not those of its hooks, so the check
that this vLLM fits is made in the first hook, and vLLM is imported nowhere before it.
"""

import asyncio
import logging
import os
from argparse import Namespace
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse

from ...adapters import Adapter, Registry, RegistryError, ServerError, TraitRouteError
from ...router import Router
from ..routing import AUTO, Routing, RoutingMiddleware
from .loras import LoraLoader

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.config.lora import LoRAConfig
    from vllm.engine.protocol import EngineClient

REGISTRY_VARIABLE = "TRAITROUTE_REGISTRY"
SUPPORTED_VLLM = ">=0.26,<0.34"
POLL_S = 2.0
_logger = logging.getLogger(__name__)

_TOUCHED = {
    "vllm.engine.protocol:EngineClient": ("add_lora",),
    "vllm.config.lora:LoRAConfig": ("max_loras",),
    "vllm.platforms:current_platform": ("is_cpu",),
    "vllm.lora.request:LoRARequest": ("lora_name", "lora_int_id", "lora_path"),
    "vllm.entrypoints.openai.models.protocol:BaseModelPath": ("name",),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels": (
        "base_model_paths",
        "lora_requests",
        "show_available_models",
    ),
}


def check_vllm() -> None:
    """Check every part of vLLM that this plugin touches.

    Raises:
        ServerError: a part is missing from the installed version.
    """
    for owner, attributes in _TOUCHED.items():
        module, _, name = owner.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError) as exc:
            raise _unfit(owner) from exc
        # What only `__init__` assigns shows among the names its code uses.
        assigned = found.__init__.__code__.co_names if hasattr(found.__init__, "__code__") else ()
        for attribute in attributes:
            if not hasattr(found, attribute) and attribute not in assigned:
                raise _unfit(f"{owner}.{attribute}")


def _unfit(part: str) -> ServerError:
    from vllm import __version__

    return ServerError(
        f"vLLM {__version__} lacks {part}, which TraitRoute needs: install vllm{SUPPORTED_VLLM}"
    )


@dataclass(frozen=True)
class _Contents:
    """What one revision of the registry offers; `no_router` says why `router` is None."""

    revision: int
    adapters: tuple[Adapter, ...]
    router: Router | None
    no_router: str


class TraitRoutePlugin:
    """Entry point of the group `vllm.endpoint_plugins`; one instance per API server process."""

    name = "traitroute"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self.routing = Routing()
        self._path = os.environ.get(REGISTRY_VARIABLE, "")
        self._registry: Registry | None = None
        self._revision: int | None = None
        self._complaint = ""

    def attach_router(self, app: "FastAPI") -> None:
        """Add the routing middleware, and a model list that shows what may be asked for."""
        check_vllm()
        app.add_middleware(RoutingMiddleware, routing=self.routing)
        app.add_api_route("/v1/models", self._list_models, include_in_schema=False)
        # Only newer versions let a plugin's route replace theirs; being first works in all of them.
        app.router.routes.insert(0, app.router.routes.pop())

    async def init_state(
        self, engine_client: "EngineClient", state: "State", args: Namespace
    ) -> None:
        """Connect to the engine, read the registry, and keep following its changes."""
        models = state.openai_serving_models
        room = _room(state.vllm_config.lora_config)
        loader = LoraLoader(engine_client, models.lora_requests, room=room)
        self.routing.base_names = tuple(path.name for path in models.base_model_paths)
        self.routing.loader = loader
        await self._refresh(loader)
        self._following = asyncio.create_task(self._follow(loader))

    async def _follow(self, loader: LoraLoader) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._refresh(loader)

    async def _refresh(self, loader: LoraLoader) -> None:
        """Take over what the registry offers where it changed; in trouble keep what is known."""
        try:
            registry = self._registry or await asyncio.to_thread(_open, self._path)
            self._registry = registry
            if await asyncio.to_thread(registry.revision) != self._revision:
                self._take_over(await asyncio.to_thread(_read, registry), registry, loader)
        except (TraitRouteError, ValueError, OSError) as exc:
            self._complain(f"the registry cannot be read: {exc}")
            if self._revision is None:
                self.routing.no_router = "no-profile: the registry cannot be read"

    def _take_over(self, contents: _Contents, registry: Registry, loader: LoraLoader) -> None:
        """Runs on the event loop, so that no request sees half of it."""
        hidden = set(self.routing.base_names)
        adapters = {a.name: a for a in contents.adapters if a.name not in hidden}
        loader.offer(adapters, registry.weights)
        self.routing.adapters = frozenset(adapters)
        self.routing.router, self.routing.no_router = contents.router, contents.no_router
        self._revision = contents.revision
        if contents.router is None:
            self._complain(contents.no_router)

    def _complain(self, message: str) -> None:
        """Log a warning once, not at every poll."""
        if message != self._complaint:
            _logger.warning("traitroute: %s", message)
        self._complaint = message

    async def _list_models(self, request: Request) -> JSONResponse:
        listing = await request.app.state.openai_serving_models.show_available_models()
        base, offered = listing.data[0], self.routing.adapters
        auto = base.model_copy(update={"id": AUTO, "root": None})
        ours = [
            base.model_copy(update={"id": name, "root": None, "parent": base.id})
            for name in sorted(offered)
        ]
        listing.data = [*(card for card in listing.data if card.id not in offered), auto, *ours]
        return JSONResponse(listing.model_dump())


def _room(lora_config: "LoRAConfig | None") -> int | None:
    """How many adapters may be loaded; see `options` for the slot that must stay empty on CPU."""
    from vllm.platforms import current_platform

    return lora_config.max_loras - 1 if lora_config and current_platform.is_cpu() else None


def _open(path: str) -> Registry:
    if not path:
        raise RegistryError(f"no registry was named: set {REGISTRY_VARIABLE} to the path of one")
    return Registry.open(Path(path), read_only=True)


def _read(registry: Registry) -> _Contents:
    # The revision comes first: what is written meanwhile is then read again at the next poll.
    revision = registry.revision()
    adapters = tuple(registry.servable())
    try:
        router = Router.from_registry(registry)
        router.route("The first request would otherwise pay for what is loaded lazily.")
    except (TraitRouteError, ValueError, ArithmeticError) as exc:
        return _Contents(revision, adapters, None, f"no-profile: {exc}")
    return _Contents(revision, adapters, router, "")
