"""The vLLM endpoint plugin: routing, adapters loaded on demand and a model list, inside vLLM's server.

It is loaded where `VLLM_PLUGINS` names `traitroute`. Routing is added in `attach_router`, which puts it innermost. The
check of keys is put outermost in `init_state`, when vLLM has added its own, which leaves paths open that generate. vLLM
swallows errors of a plugin's constructor but not those of its hooks, so the check that this vLLM fits is made in the
first hook, and vLLM is imported nowhere before it.
"""

import logging
import os
from argparse import Namespace
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ...adapters import Registry, RegistryError, ServerError
from ..api_routes import api_routes, is_for_tenants, open_paths
from ..experiment import Experiment
from ..http.addresses import ANY, EXPOSED
from ..http.errors import model_response
from ..http.keys import ApiKeys, KeyCheck
from ..http.tenants import tenant_of
from ..middleware import RoutingMiddleware
from ..middleware.record import open_metrics
from ..slots import VARIABLE as LOAD_COST
from ..slots import Slots
from ..state import AUTO, ServerState
from ..watcher import RegistryWatcher
from .loras import LoraLoader

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.config import ModelConfig
    from vllm.config.lora import LoRAConfig
    from vllm.v1.engine.async_llm import AsyncLLM

REGISTRY_VARIABLE = "TRAITROUTE_REGISTRY"
DIGEST_VARIABLE = "TRAITROUTE_BASE_DIGEST"
"""Which base model this is, where `traitroute serve` has looked: no adapter of another one is served."""
BUDGET_VARIABLE = "TRAITROUTE_BUDGET_MS"
SUPPORTED_VLLM = ">=0.26,<0.34"
METRICS = "/metrics"
OPEN = frozenset(
    {
        "/ping",
        "/load",
        "/version",
        METRICS,
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/openapi.json",
        "/static/swagger-ui-bundle.js",
        "/static/swagger-ui.css",
    }
)
"""vLLM's pages that need no key, beside health: those that load balancers, orchestrators and Prometheus read, and the
description of its routes. None of them generates, holds a request's text or changes anything."""

_logger = logging.getLogger(__name__)
_TOUCHED = {
    "vllm.v1.engine.async_llm:AsyncLLM": ("add_lora", "remove_lora", "generate", "tokenizer"),
    "vllm.config.lora:LoRAConfig": ("max_loras", "target_modules"),
    "vllm.config:ModelConfig": ("model", "revision"),
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
            part = getattr(import_module(module), name)
        except (ImportError, AttributeError) as exc:
            raise _unfit(owner) from exc
        # What only `__init__` assigns shows among the names its code uses.
        assigned = part.__init__.__code__.co_names if hasattr(part.__init__, "__code__") else ()
        for attribute in attributes:
            if not hasattr(part, attribute) and attribute not in assigned:
                raise _unfit(f"{owner}.{attribute}")


def _unfit(part: str) -> ServerError:
    from vllm import __version__

    return ServerError(f"vLLM {__version__} lacks {part}, which TraitRoute needs: install vllm{SUPPORTED_VLLM}")


class TraitRoutePlugin:
    """Entry point of the group `vllm.endpoint_plugins`; one instance per API server process."""

    name = "traitroute"
    required_tasks = ("generate", "embed", "classify", "token_embed", "token_classify")

    def __init__(self) -> None:
        self.state = ServerState()

    def attach_router(self, app: "FastAPI") -> None:
        """Add the routing middleware, and a model list that shows what may be asked for."""
        check_vllm()
        _set_log_level()
        self.state.budget_s = _budget_s(os.environ.get(BUDGET_VARIABLE, "50"))
        self.state.invocations_header = _invocations_header()
        self.state.experiment = Experiment.from_environment()
        app.add_middleware(RoutingMiddleware, state=self.state)
        app.router.routes.extend(api_routes(self.state))
        # Only newer versions let a plugin's route replace theirs; being first works in all of them.
        app.router.routes[:0] = [
            Route("/v1/models", self._list_models),
            Route("/v1/models/{name:path}", self._show_model),
        ]
        self._app = app

    async def init_state(self, engine_client: "AsyncLLM", state: "State", args: Namespace) -> None:
        """Connect to the engine, and watch the registry."""
        models = state.openai_serving_models
        lora_config = state.vllm_config.lora_config
        slots = _slots(lora_config, args)
        loader = LoraLoader(
            engine_client,
            models.lora_requests,
            room=_room(lora_config),
            modules=lora_config and lora_config.target_modules,
            base=_folder(state.vllm_config.model_config),
            base_digest=os.environ.get(DIGEST_VARIABLE) or None,
            on_proof=open_metrics().proof,
            slots=slots,
        )
        self.state.slots = slots
        self.state.base_names = tuple(path.name for path in models.base_model_paths)
        self.state.loader, self.state.loaded, self.state.proof = loader, loader.holds, loader.proof
        guard(self._app, ApiKeys.of_server(args))
        # Any page may read answers where an operator says so; MCP asks for names (DNS rebinding).
        self.state.origins = tuple(getattr(args, "allowed_origins", None) or ())
        path = os.environ.get(REGISTRY_VARIABLE, "")
        self._watcher = RegistryWatcher(self.state, lambda: _open(path), loader.offer)
        await self._watcher.start()

    async def _show_model(self, request: Request) -> JSONResponse:
        return model_response(request.path_params["name"], (await self._listing(request))["data"])

    async def _list_models(self, request: Request) -> JSONResponse:
        return JSONResponse(await self._listing(request))

    async def _listing(self, request: Request) -> dict[str, Any]:
        listing = await request.app.state.openai_serving_models.show_available_models()
        base, snapshot = listing.data[0], self.state.seen_by(tenant_of(request.scope))
        auto = base.model_copy(update={"id": AUTO, "root": None})
        ours = [
            base.model_copy(update={"id": name, "root": adapter.weights_digest, "parent": base.id})
            for name, adapter in sorted(snapshot.adapters.items())
        ]
        known, bases = snapshot.adapters.keys() | snapshot.withheld, self.state.base_names
        theirs = [card for card in listing.data if card.id in bases or snapshot.may_name(card.id)]
        listing.data = [*(card for card in theirs if card.id not in known), auto, *ours]
        return listing.model_dump()


def guard(app: "FastAPI", keys: ApiKeys) -> None:
    """Put the check of `keys` around all that vLLM and others added to `app`, and vLLM's CORS around that.

    A browser's question whether a page may ask bears no key; and what pages may read includes our headers.

    Raises:
        ServerError: any web page might ask with its user's credentials.
    """
    cross_origin = [each for each in app.user_middleware if each.cls is CORSMiddleware]
    for each in cross_origin:
        options: Any = each.kwargs
        if ANY in options.get("allow_origins", ()) and options.get("allow_credentials"):
            raise ServerError(
                "--allow-credentials with --allowed-origins '[\"*\"]' lets every web page ask in its "
                "reader's name: name the origins, or leave --allow-credentials out"
            )
        options.setdefault("expose_headers", EXPOSED)
    others = [each for each in app.user_middleware if each.cls is not CORSMiddleware]
    message = "this server wants one of its API keys, in the header 'Authorization: Bearer KEY'"
    # Adapters' names are labels there.
    opened = OPEN - {METRICS} if keys.have_tenants else OPEN
    check = Middleware(
        KeyCheck, keys=keys, message=message, open_paths=opened | open_paths(), is_for_tenants=is_for_tenants
    )
    app.user_middleware[:] = [*cross_origin, check, *others]
    # Some of vLLM's extensions have built it already; it is built again at the first request.
    app.middleware_stack = None


def _set_log_level() -> None:
    """Give our loggers a level of their own: a package that vLLM imports sets the root logger's level to ERROR."""
    ours = logging.getLogger("traitroute")
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


def _invocations_header() -> str:
    """The header from which vLLM's `/invocations` takes the model; without it that path stays as it is."""
    try:
        from model_hosting_container_standards.sagemaker import SageMakerLoRAApiHeader
    except ImportError:
        return ""
    return SageMakerLoRAApiHeader.ADAPTER_IDENTIFIER


def _folder(model_config: "ModelConfig") -> Path | None:
    """Where the base model's files lie on this machine."""
    if (folder := Path(model_config.model)).is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        known = try_to_load_from_cache(model_config.model, "config.json", revision=model_config.revision)
        if isinstance(known, str):
            return Path(known).parent
    return None


def _room(lora_config: "LoRAConfig | None") -> int | None:
    """How many adapters may be loaded; see `options` for the slot that must stay empty on CPU."""
    from vllm.platforms import current_platform

    return lora_config.max_loras - 1 if lora_config and current_platform.is_cpu() else None


def _slots(lora_config: "LoRAConfig | None", args: Namespace) -> Slots | None:
    """What the engine holds, where the operator has set what loading costs, and this process sees all requests."""
    slots = Slots.from_environment(lora_config and lora_config.max_loras)
    if slots is not None and (count := getattr(args, "api_server_count", None) or 1) > 1:
        _logger.warning("%s has no effect with %d API servers: none sees what the others ask for", LOAD_COST, count)
        return None
    return slots


def _open(path: str) -> Registry:
    if not path:
        raise RegistryError(f"no registry was named: set {REGISTRY_VARIABLE} to the path or URL of one")
    return Registry.open(path, read_only=True)


def _budget_s(milliseconds: str) -> float:
    """The time that a decision may take, in seconds.

    Raises:
        ServerError: the text is no number of milliseconds between 1 and 10,000.
    """
    try:
        budget = float(milliseconds)
    except ValueError:
        budget = 0.0
    if not 1 <= budget <= 10_000:
        raise ServerError(
            f"{BUDGET_VARIABLE} is {milliseconds!r}: give the milliseconds a decision may take, 1 to 10000"
        )
    return budget / 1000
