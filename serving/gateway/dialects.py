"""How servers of different make are asked: which paths they are asked at, how for an adapter, how they get one.

- vLLM: by model name; `POST /v1/load_lora_adapter` exists where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set.
  vLLM numbers adapters per API server process, so behind several such processes (`--api-server-count`,
  `--data-parallel-size` without external balancing) names loaded at run time answer from the wrong
  adapter. The operator must run one API server process per upstream, or preload by `--lora-modules`.
- SGLang: an adapter's bare name as `model` is answered by the *base* model without a word. It wants
  `base:name`, and before that form existed `lora_path`; both are sent. `POST /load_lora_adapter` loads.
- LoRAX: the adapter's path is its id, in every request; nothing is loaded beforehand.

A client's request is handed on only to a path listed here. Each reads a JSON body that names its model as `model`,
or none; vLLM's `/invocations`, which takes a header's word for it, and LoRAX's `/generate`, whose adapter is
named elsewhere, are not among them.
"""

import re
from dataclasses import dataclass
from typing import Any, Protocol

from .options import Load

_OPENAI = frozenset(
    (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
    )
)
_VLLM = _OPENAI | {
    "/classify",
    "/cohere/v2/chat",
    "/detokenize",
    "/generative_scoring",
    "/inference/v1/generate",
    "/pooling",
    "/rerank",
    "/score",
    "/tokenize",
    "/v1/audio/speech",
    "/v1/chat/completions/batch",
    "/v1/images/generations",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/score",
    "/v2/embed",
    "/v2/rerank",
}
_SGLANG = _OPENAI | {
    "/classify",
    "/detokenize",
    "/encode",
    "/generate",
    "/tokenize",
    "/v1/classify",
    "/v1/detokenize",
    "/v1/rerank",
    "/v1/score",
    "/v1/tokenize",
}
_LORAX = frozenset(("/v1/chat/completions", "/v1/completions"))
_STORED = re.compile(r"/v1/responses/[A-Za-z0-9_-]{1,128}(/cancel)?")
"""A response that the server has kept, by its id: read with GET, cancelled with POST, both without a body."""


def open_method(path: str) -> str | None:
    """The method by which a path is open at upstreams of any make, or None."""
    if stored := _STORED.fullmatch(path):
        return "POST" if stored[1] else "GET"
    return "POST" if path in _VLLM | _SGLANG | _LORAX else None


def has_body(path: str) -> bool:
    """Whether an open path reads a JSON body."""
    return not _STORED.fullmatch(path)


class Dialect(Protocol):
    """One make of server."""

    @property
    def load_path(self) -> str | None:
        """The path that takes `lora_name` and `lora_path` by POST; None where there is none."""
        ...

    @property
    def by_path(self) -> bool:
        """Whether adapters are named by their path in every request."""
        ...

    def opens(self, path: str) -> bool:
        """Whether clients' requests for this path are handed on."""
        ...

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """What a request's body must say to be answered by the adapter listed as `name`."""
        ...


@dataclass(frozen=True)
class OpenAI:
    """Whatever goes by the model's name: vLLM, Ollama, hosted servers."""

    load_path: str | None = None
    by_path: bool = False

    def opens(self, path: str) -> bool:
        """What OpenAI's API has of inference, and vLLM beside it."""
        return path in _VLLM or not has_body(path)

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """The name is enough."""
        return {"model": name}


@dataclass(frozen=True)
class SGLang:
    """SGLang, which goes by `base:name`."""

    load_path: str | None = None
    by_path: bool = False

    def opens(self, path: str) -> bool:
        """What OpenAI's API has of inference, and SGLang beside it."""
        return path in _SGLANG or not has_body(path)

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """A base with a colon in its name cannot be told apart from an adapter's, so it is left out."""
        model = f"{base}:{name}" if base and ":" not in base else base or name
        return {"model": model, "lora_path": name}


@dataclass(frozen=True)
class LoRAX:
    """LoRAX, which reads an adapter from the path that a request names."""

    load_path: str | None = None
    by_path: bool = True

    def opens(self, path: str) -> bool:
        """The paths where `model` names the adapter."""
        return path in _LORAX

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """`name` is a path of the upstream's file system."""
        return {"model": name, "adapter_source": "local"}


def dialect(load: Load, owned_by: str | None) -> Dialect:
    """The dialect of an upstream that lists its models as owned by `owned_by`."""
    if load is Load.LORAX:
        return LoRAX()
    if load is Load.SGLANG or owned_by == "sglang":
        return SGLang("/load_lora_adapter" if load is Load.SGLANG else None)
    return OpenAI("/v1/load_lora_adapter" if load is Load.VLLM else None)
