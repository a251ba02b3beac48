"""An adapter, the base model it is for, and how servers address the two."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Method = Literal["lora", "rslora", "dora", "ia3"]
RESERVED_NAMES = frozenset({"auto", "base"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return `name` if it can name an adapter or a task; it becomes a model name, a header and a path.

    Raises:
        ValueError: the name is reserved, too long, or holds a character outside letters, digits, `.`, `_`, `-`.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{name[:80]!r} cannot be a name: use 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit, without '..'"
        )
    if name.lower() in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved: it means routing or the bare base model")
    return name


def served_name(name: str) -> str:
    """Normalise a served model's name: some servers ignore case, and take NAME for NAME:latest."""
    return name.casefold().removesuffix(":latest")


def model_name(given: str) -> str:
    """Return the last part of a path or Hub id, normalised; in the Hub's cache, the part that names the model.

    A GGUF file names the model without its suffix.
    """
    parts = [part for part in given.replace("\\", "/").split("/") if part]
    cached = next((part.split("--")[-1] for part in parts if part.startswith("models--")), None)
    return served_name(cached or (parts[-1] if parts else given)).removesuffix(".gguf")


def check_not_base(name: str, *base_models: str) -> None:
    """Check that an adapter does not have the name of its base model: servers would answer with the base model.

    Raises:
        ValueError: it has that of one of `base_models`, whole or as the last part of its path or id.
    """
    for base_model in base_models:
        if served_name(name) in (served_name(base_model), model_name(base_model)):
            raise ValueError(
                f"{name!r} is the name of the base model ({base_model}), by which servers answer without an adapter: "
                "choose another name"
            )


def cache_folder() -> Path:
    """The folder of converted models and of this machine's benchmarks: `$TRAITROUTE_CACHE` or `~/.cache/traitroute`."""
    return Path(os.environ.get("TRAITROUTE_CACHE") or Path.home() / ".cache" / "traitroute")


def dequantised_folder(name: str, digest: str) -> Path:
    """Where the weights of the GGUF file `digest` are, once dequantised: in a folder that servers call like `name`."""
    last = Path(name).resolve().name
    return cache_folder() / "gguf" / digest[:16] / (last[: -len(".gguf")] if last.lower().endswith(".gguf") else last)


@dataclass(frozen=True)
class Base:
    """A base model that adapters are for; `folder` where its files are on this machine."""

    name: str
    digest: str
    folder: Path | None = None

    def is_named(self, name: str) -> bool:
        """Whether `name`, a path or a Hub id, has the same last part as this model's."""
        return model_name(name) == model_name(self.name)

    def local_folder(self) -> Path | None:
        """Return the folder of the base model's files: the given one, or one of its name, also in the cache."""
        named = (Path(self.name), cache_folder() / self.name, dequantised_folder(self.name, self.digest))
        return self.folder or next((folder for folder in named if (folder / "config.json").is_file()), None)


Name = Annotated[str, AfterValidator(check_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AdapterState(StrEnum):
    """`pending`: addressable by name only; `ready`: measured, so routable; `disabled`: neither."""

    PENDING = "pending"
    READY = "ready"
    DISABLED = "disabled"


class Adapter(BaseModel):
    """One adapter; its weights live in the `WeightStore` under `weights_digest`.

    `rank` is 1 for IA3, which has none. `tags` are the owner's own words, by which requests may ask for adapters; they
    stay with the name when its weights are replaced, which increases `version`. `uri` says where the weights came from,
    without credentials; `note` why the adapter is in its state.

    `canary` is the share of the traffic it would win that it gets (None: all of it, 0: none); `replaces` is the adapter
    in whose place it does, and which gets none once this one gets all.

    `effect` is by how much it changed the log-probabilities of a fixed probe when it was measured, at most and in nats,
    and `noise` by how much the base model's own change there from one batch to another (None: not known).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    base_model: str
    base_digest: Digest
    weights_digest: Digest
    rank: Annotated[int, Field(ge=1)]
    target_modules: tuple[str, ...]
    method: Method = "lora"
    state: AdapterState = AdapterState.PENDING
    source_task: str | None = None
    tags: tuple[Name, ...] = ()
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    uri: str | None = None
    licence: str | None = None
    note: str | None = None
    version: Annotated[int, Field(ge=1)] = 1
    effect: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    canary: Annotated[float, Field(ge=0, lt=1)] | None = None
    replaces: Name | None = None

    @property
    def vllm_serves(self) -> bool:
        """Whether vLLM can run the adapter: it refuses DoRA, and knows only LoRA."""
        return self.method in ("lora", "rslora")

    @property
    def serving_id(self) -> int:
        """The adapter's integer id in vLLM, in [2^30, 2^31): equal in every server process.

        vLLM's own ids are counted per process: with several API servers a request for one adapter could be answered
        by another (docs/decisions.md).
        """
        return serving_id(self.weights_digest)


def serving_id(weights_digest: str) -> int:
    """Map a weights digest to a stable id in [2^30, 2^31); see `Adapter.serving_id`."""
    return 2**30 + int(weights_digest[:16], 16) % 2**30
