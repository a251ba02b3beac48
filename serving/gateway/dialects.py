"""How servers of different makes are asked: at which paths, how for an adapter, and how they load one.

- vLLM: by model name; `POST /v1/load_lora_adapter` exists where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set.
  vLLM numbers adapters per API server process, so behind several such processes (`--api-server-count`,
  `--data-parallel-size` without external balancing) names loaded at run time answer from the wrong
  adapter. The operator must run one API server process per upstream, or preload by `--lora-modules`.
- SGLang: an adapter's bare name as `model` is silently answered by the *base* model. It wants `base:name`, and before
  that form existed `lora_path`; both are sent. `POST /load_lora_adapter` loads.
- LoRAX: every request names the adapter by its path; nothing is loaded beforehand.
- Ray Serve LLM: `base:name`, of which it lists what lies in its `dynamic_lora_loading_path`. With TraitRoute's
  `StoredWeights` for a downloader every request names the adapter by the digest of its weights.

A client's request is handed on only to a path listed here. Each reads a JSON body that names its model as `model`,
or none; vLLM's `/invocations`, where a header names the adapter, and LoRAX's `/generate`, where another field does, are
left out. A path is decided on once, before anything is compared with it: the HTTP server has decoded it, and from then
on it holds nothing that whoever reads it next could read in another way.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ...adapters import Adapter
from ..http.errors import error_response
from ..page import page_paths
from .options import Load

_LORAX = frozenset(("/v1/chat/completions", "/v1/completions"))
_OPENAI = _LORAX | {"/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"}
_VLLM = _OPENAI | {
    *("/classify", "/cohere/v2/chat", "/detokenize", "/generative_scoring", "/inference/v1/generate", "/pooling"),
    *("/rerank", "/score", "/tokenize", "/v1/audio/speech", "/v1/chat/completions/batch", "/v1/images/generations"),
    *("/v1/moderations", "/v1/rerank", "/v1/score", "/v2/embed", "/v2/rerank"),
}
_SGLANG = _OPENAI | {
    *("/classify", "/detokenize", "/encode", "/generate", "/tokenize"),
    *("/v1/classify", "/v1/detokenize", "/v1/rerank", "/v1/score", "/v1/tokenize"),
}
_RAY = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/score", "/tokenize", "/detokenize"))
_RAYS_CARDS = "organization-owner"
"""Whom Ray Serve LLM says that its models are owned by."""
_STORED = re.compile(r"/v1/responses/[A-Za-z0-9_-]{1,128}(/cancel)?")
"""A response that the server has kept, by its id: read with GET, cancelled with POST, both without a body."""


@dataclass(frozen=True)
class Dialect:
    """One make of server.

    `paths` are those where clients' requests are handed on. `fields(name, base)` is what a request's body must hold to
    be answered by the adapter listed as `name`. `load_path` takes `lora_name` and `lora_path` by POST (None: there is
    no such path). `asked_as(adapter, path, base)` is the name by which a request makes the server load an adapter that
    it does not list (None: no request does), and `is_prefixed` says that adapters are listed as `base:name`.
    """

    paths: frozenset[str]
    fields: Callable[[str, str | None], dict[str, Any]]
    load_path: str | None = None
    asked_as: Callable[[Adapter, str, str], str] | None = None
    is_prefixed: bool = False

    def opens(self, path: str) -> bool:
        """Whether clients' requests for this path are handed on; LoRAX and Ray keep no responses."""
        return path in self.paths or ("/v1/responses" in self.paths and not has_body(path))


def dialect(load: Load, owned_by: str | None) -> Dialect:
    """The dialect of an upstream that lists its models as owned by `owned_by`."""
    if load is Load.LORAX:
        by_path = {"adapter_source": "local"}
        return Dialect(_LORAX, lambda name, base: {"model": name, **by_path}, asked_as=lambda adapter, path, base: path)
    if load is Load.RAY or owned_by == _RAYS_CARDS:
        return Dialect(
            _RAY, lambda name, base: {"model": name}, asked_as=_rays if load is Load.RAY else None, is_prefixed=True
        )
    if load is Load.SGLANG or owned_by == "sglang":
        return Dialect(_SGLANG, _sglang_fields, "/load_lora_adapter" if load is Load.SGLANG else None)
    # Whatever goes by the model's name: vLLM, Ollama, hosted servers.
    load_path = "/v1/load_lora_adapter" if load is Load.VLLM else None
    return Dialect(_VLLM, lambda name, base: {"model": name}, load_path)


def _sglang_fields(name: str, base: str | None) -> dict[str, Any]:
    # With a colon in the base's name SGLang could not split the pair, so the base's name alone is sent.
    model = f"{base}:{name}" if base and ":" not in base else base or name
    return {"model": model, "lora_path": name}


def _rays(adapter: Adapter, path: str, base: str) -> str:
    return f"{base}:{adapter.name}@{adapter.weights_digest}"


def open_method(path: str) -> str | None:
    """The method by which a path is open at upstreams of any make, or None."""
    if stored := _STORED.fullmatch(path):
        return "POST" if stored[1] else "GET"
    return "POST" if path in _VLLM | _SGLANG else None


def has_body(path: str) -> bool:
    """Whether an open path reads a JSON body."""
    return not _STORED.fullmatch(path)


MODELS = "/v1/models/"
"""Below it slashes may be encoded, as OpenAI's clients do with a model's name: nothing of it is handed on."""
# No backslash, `;`, control character or `%` of a second encoding; nothing that is not ASCII.
_PLAIN = re.compile(r"/[A-Za-z0-9._~@:+=,/-]*")
_WITH_SLASH = frozenset(path for path in page_paths() if path.endswith("/"))


def plain_path(scope: Scope) -> str | None:
    """The request's path, without a slash at its end; None where it could be read in two ways."""
    path: str = scope["path"]
    if not _PLAIN.fullmatch(path) or "//" in path or {".", ".."} & set(path.split("/")):
        return None
    if b"%2f" in scope.get("raw_path", b"").lower() and not path.startswith(MODELS):
        return None
    return path if path in _WITH_SLASH else path.rstrip("/") or "/"


class PlainPaths:
    """Pure ASGI middleware, before all others: they see the plain path, and no request without one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif (path := plain_path(scope)) is not None:
            await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, send)
        elif scope["type"] == "http":
            message = "no such path here: write it without dots, double or encoded slashes"
            await error_response(404, message)(scope, receive, send)
        else:
            await send({"type": "websocket.close"})
