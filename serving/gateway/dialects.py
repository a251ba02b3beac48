"""How servers of different make are asked for an adapter, and how they are given one.

- vLLM: by model name; `POST /v1/load_lora_adapter` exists where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set.
  vLLM numbers adapters per API server process, so behind several such processes (`--api-server-count`,
  `--data-parallel-size` without external balancing) names loaded at run time answer from the wrong
  adapter. The operator must run one API server process per upstream, or preload by `--lora-modules`.
- SGLang: an adapter's bare name as `model` is answered by the *base* model without a word. It wants
  `base:name`, and before that form existed `lora_path`; both are sent. `POST /load_lora_adapter` loads.
- LoRAX: the adapter's path is its id, in every request; nothing is loaded beforehand.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from .options import Load


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

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """What a request's body must say to be answered by the adapter listed as `name`."""
        ...


@dataclass(frozen=True)
class OpenAI:
    """Whatever goes by the model's name: vLLM, Ollama, hosted servers."""

    load_path: str | None = None
    by_path: bool = False

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """The name is enough."""
        return {"model": name}


@dataclass(frozen=True)
class SGLang:
    """SGLang, which goes by `base:name`."""

    load_path: str | None = None
    by_path: bool = False

    def fields(self, name: str, base: str | None) -> dict[str, Any]:
        """A base with a colon in its name cannot be told apart from an adapter's, so it is left out."""
        model = f"{base}:{name}" if base and ":" not in base else base or name
        return {"model": model, "lora_path": name}


@dataclass(frozen=True)
class LoRAX:
    """LoRAX, which reads an adapter from the path that a request names."""

    load_path: str | None = None
    by_path: bool = True

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
