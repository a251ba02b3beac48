"""The two files of an adapter in PEFT's format: what is accepted, and how it is identified.

Only `adapter_config.json` and `adapter_model.safetensors` are ever read. A pickle is refused unopened, because opening
one can run code. The digest covers the tensors and those settings that change what the adapter computes, so a moved
base model or another PEFT version does not change it.

This is the only reader, for adding, storing, measuring and serving alike. vLLM silently ignores tensors of layers that
it does not have, so whatever is not a matrix of a layer is refused here.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..adapter import Adapter, Method
from ..errors import WeightsError
from .adapter_config import (
    HIGHEST_RANK,
    LARGEST_CONFIG,
    Ia3Config,
    LoraConfig,
    check_full_match,
    check_named,
    parse_config,
)
from .tensor_file import Tensor, read_bytes, read_header, read_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
_PREFIX = "base_model.model."
_SIDES = {".lora_A.weight": "A", ".lora_B.weight": "B", ".lora_embedding_A": "A", ".lora_embedding_B": "B"}
_MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")


@dataclass(frozen=True)
class Layer:
    """What a LoRA adds to one layer: a map from `features_in` to `features_out` numbers, of rank `rank`."""

    features_out: int
    features_in: int
    rank: int
    embedding: bool = False


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter in PEFT's format, as its tensors describe it.

    `layers` are the layers that it changes, by their path in the base model, none for an IA3; `target_modules` are the
    last parts of the paths, sorted; `rank` is the highest, 1 for an IA3. `unservable` says why no server of ours can
    serve it, and is None where one can.
    """

    digest: str
    rank: int
    target_modules: tuple[str, ...]
    base_model: str | None
    method: Method
    config: LoraConfig | Ia3Config = field(repr=False)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    unservable: str | None = None

    @property
    def pattern(self) -> str | None:
        """The regular expression by which PEFT would select the modules, never to be run on a server."""
        return self.config.pattern if isinstance(self.config, LoraConfig) else None

    def adapter(self, name: str, base_model: str, base_digest: str, **stated: Any) -> Adapter:
        """The registry's record of these weights as `name`, for a base model; `stated` are further fields of it."""
        return Adapter(
            name=name,
            base_model=base_model,
            base_digest=base_digest,
            weights_digest=self.digest,
            rank=self.rank,
            target_modules=self.target_modules,
            method=self.method,
            **stated,
        )

    def check_servable(self, folder: Path) -> None:
        """Check that a server of ours can serve it, and that a pattern in its configuration selects its layers.

        Raises:
            WeightsError: it does not.
        """
        if self.unservable is not None:
            raise WeightsError(f"{folder} cannot be served: {self.unservable}")
        if (pattern := self.pattern) is not None:
            check_full_match(pattern, self.layers)

    def peft_settings(self) -> dict[str, Any]:
        """Return arguments of PEFT's `LoraConfig` or `IA3Config` that load exactly this; none of them is a pattern."""
        config = self.config
        if isinstance(config, Ia3Config):
            return {
                "target_modules": config.target_modules,
                "feedforward_modules": config.feedforward_modules or [],
                "fan_in_fan_out": bool(config.fan_in_fan_out),
            }
        return {
            "r": config.r,
            "lora_alpha": config.lora_alpha,
            "rank_pattern": dict(config.rank_pattern or {}),
            "alpha_pattern": dict(config.alpha_pattern or {}),
            "target_modules": sorted(self.layers),
            "fan_in_fan_out": bool(config.fan_in_fan_out),
            "use_rslora": bool(config.use_rslora),
            "use_dora": bool(config.use_dora),
        }


def inspect_adapter(folder: Path, *, copy_to: Path | None = None) -> AdapterFiles:
    """Read and check the adapter in `folder`, in PEFT's format; copy what is read to `copy_to`.

    Raises:
        WeightsError: a file is absent, a symlink, a pickle, truncated or corrupt; or the adapter is no LoRA or IA3,
            holds NaN or infinity, or contradicts its own configuration.
    """
    if not folder.is_dir():
        raise WeightsError(f"no adapter folder {folder}: give the folder that PEFT saved")
    with ExitStack() as files:
        config = files.enter_context(_opened(folder / CONFIG))
        weights = files.enter_context(_opened(folder / WEIGHTS))
        return _read(folder, config, weights, copy_to)


def stored_layers(folder: Path) -> dict[str, Layer]:
    """Return the layers that the LoRA in `folder` changes, from its header alone: for one that was checked before.

    Raises:
        WeightsError: it is no LoRA.
    """
    with _opened(folder / WEIGHTS) as file:
        tensors, _ = read_header(file, folder / WEIGHTS)
    try:
        return _layers(tensors)
    except ValueError as exc:
        raise WeightsError(f"{folder}: {exc}") from exc


def configured_base(folder: Path) -> str | None:
    """The base model named in the configuration of the adapter in `folder`; None where there is none to read."""
    try:
        with _opened(folder / CONFIG) as file:
            config = parse_config(read_bytes(file, LARGEST_CONFIG + 1, folder / CONFIG), folder / CONFIG).settings
    except (WeightsError, OSError):
        return None
    return config.base_model_name_or_path


def _opened(path: Path) -> IO[bytes]:
    """Open a plain file, without following a link or waiting for a pipe."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except FileNotFoundError as exc:
        present = [other.name for other in path.parent.iterdir()]
        raise WeightsError(absence(path.name, present, path.parent)) from exc
    except OSError as exc:
        if path.is_symlink():
            raise WeightsError(f"{path} is a symbolic link: put the file itself there") from exc
        raise WeightsError(f"{path} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise WeightsError(f"{path} is no plain file: put the file itself there")
    return file


def absence(name: str, present: Collection[str], place: str | Path) -> str:
    """Return the message that `place`, which holds the files `present`, lacks an adapter's file `name`."""
    pickles = sorted(other for other in present if Path(other).suffix in _PICKLES)
    if name == WEIGHTS and pickles:
        return (
            f"{place} holds no {WEIGHTS}, only pickle ({', '.join(pickles)}), and opening a pickle "
            "can run code: if you trust it, load it with PEFT and save it again with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    return f"{place} has no {name}: give the folder that PEFT saved"


def _read(folder: Path, config_file: IO[bytes], weights: IO[bytes], copy_to: Path | None) -> AdapterFiles:
    data = read_bytes(config_file, LARGEST_CONFIG + 1, folder / CONFIG)
    parsed = parse_config(data, folder / CONFIG)
    config, why = parsed.settings, parsed.unservable
    digest = hashlib.sha256(parsed.canonical + b"\n")
    with ExitStack() as copies:
        sinks: list[Callable[[bytes], object]] = [digest.update]
        if copy_to is not None:
            (copy_to / CONFIG).write_bytes(data)
            sinks.append(copies.enter_context((copy_to / WEIGHTS).open("xb")).write)
        tensors = read_tensors(weights, folder / WEIGHTS, sinks=sinks)
    layers: dict[str, Layer] = {}
    try:
        if isinstance(config, LoraConfig):
            layers = _layers(tensors, dora=bool(config.use_dora))
            config.check_layers({name: layer.rank for name, layer in layers.items()})
            modules = {name.rpartition(".")[2] for name in layers}
        else:
            modules = _ia3_modules(tensors, config)
    except ValueError as exc:
        # The reason why no server can serve it says more than that its tensors are not those of a plain LoRA.
        reason = f"{folder} cannot be served: {why}" if why else f"{folder}: {exc}"
        raise WeightsError(reason) from exc
    return AdapterFiles(
        digest=digest.hexdigest(),
        rank=max((layer.rank for layer in layers.values()), default=1),
        target_modules=tuple(sorted(modules)),
        base_model=config.base_model_name_or_path,
        method=config.method if isinstance(config, LoraConfig) else "ia3",
        config=config,
        layers=layers,
        unservable=why,
    )


def _layers(tensors: Collection[Tensor], *, dora: bool = False) -> dict[str, Layer]:
    """Pair the two matrices of each layer.

    Raises:
        ValueError: a tensor is no such matrix, or two do not belong together.
    """
    if not any(".lora_" in tensor.name for tensor in tensors):
        raise ValueError(f"{WEIGHTS} holds no LoRA tensors: save the adapter, not the merged model")
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        ending = next((end for end in _SIDES if tensor.name.endswith(end)), None)
        if ending is not None and (layer := _between(tensor.name, ending)):
            if (side := _SIDES[ending]) in (pair := halves.setdefault(layer, {})):
                raise ValueError(f"{layer} has lora_{side} twice: save the adapter again")
            pair[side] = tensor
        elif not (dora and tensor.name.endswith(_MAGNITUDES)):
            raise ValueError(_refusal(tensor.name))
    return {layer: _joined(layer, pair) for layer, pair in halves.items()}


def _between(name: str, ending: str) -> str:
    """Return the layer's path in a tensor's name, empty where PEFT would not name a tensor so."""
    fits = name.startswith(_PREFIX) and name.endswith(ending)
    return name[len(_PREFIX) : -len(ending)] if fits else ""


def _refusal(name: str) -> str:
    """Return why a tensor of this name is refused, and the cure."""
    parts = name.split(".")
    side = next((i for i, part in enumerate(parts) if part in ("lora_A", "lora_B")), None)
    if side is not None and parts[side + 2 :] == ["weight"]:
        return (
            f"{name} has the adapter's name {parts[side + 1]!r} in its key, as PEFT has it in memory: save it with "
            f"model.save_pretrained(folder), or take '.{parts[side + 1]}' out of the keys"
        )
    if side is not None and not name.startswith(_PREFIX):
        return f"{name} does not begin with {_PREFIX!r}: save the adapter with PEFT's save_pretrained(folder)"
    if name.endswith(("embed_tokens.weight", "base_layer.weight", "lm_head.weight")):
        return (
            f"{name} is a whole layer of the base model beside the LoRA: save it with "
            "save_pretrained(folder, save_embedding_layers=False), and where training changed it, train without that"
        )
    return f"{name} is no matrix of a LoRA, and what is not would not be served: save the adapter alone"


def _joined(name: str, pair: Mapping[str, Tensor]) -> Layer:
    if len(pair) < 2:
        raise ValueError(f"{name} has lora_{next(iter(pair))} alone: save it again")
    a, b = pair["A"], pair["B"]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ValueError(
            f"{name} has matrices of the shapes {list(a.shape)} and {list(b.shape)}, and servers of ours take two "
            "dimensions: train it again without that layer"
        )
    (rank, width), (height, other) = a.shape, b.shape
    if rank != other:
        raise ValueError(f"{name} has lora_A of rank {rank} and lora_B of rank {other}: save it again")
    if not (1 <= rank <= HIGHEST_RANK and width and height):
        raise ValueError(
            f"{name} has rank {rank} and takes {width} features to {height}; ranks from 1 to {HIGHEST_RANK} are taken"
        )
    kinds = {tensor.name.endswith(".weight") for tensor in pair.values()}
    if len(kinds) > 1:
        raise ValueError(f"{name} has a matrix of an embedding and one of a layer: save it again")
    return Layer(height, width, rank, embedding=not kinds.pop())


def _ia3_modules(tensors: Collection[Tensor], config: Ia3Config) -> set[str]:
    """Return the modules that an IA3 scales.

    Raises:
        ValueError: a tensor is no scale of a module, or one that is configured has none.
    """
    layers = []
    for tensor in tensors:
        if not (layer := _between(tensor.name, ".ia3_l")):
            raise ValueError(f"{tensor.name} is no scale of an IA3: save the adapter alone")
        layers.append(layer)
    check_named("target_modules", config.target_modules, layers)
    return {layer.rpartition(".")[2] for layer in layers}
