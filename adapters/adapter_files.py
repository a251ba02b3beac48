"""The two files of an adapter in PEFT's format: what is accepted, and how it is identified.

Only `adapter_config.json` and `adapter_model.safetensors` are ever read. A pickle is refused
unopened, because opening one can run code. The digest covers the tensors and those settings that
change what the adapter computes, so a moved base model or another PEFT version leaves it alone.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, deserialize

from .adapter import Method
from .errors import WeightsError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
_SET_KEYS = frozenset(
    {
        "exclude_modules",
        "feedforward_modules",
        "layers_to_transform",
        "modules_to_save",
        "target_modules",
    }
)
_COMPUTING_KEYS = _SET_KEYS | {
    "alora_invocation_tokens",
    "alpha_pattern",
    "bias",
    "feedforward_modules",
    "fan_in_fan_out",
    "layer_replication",
    "layers_pattern",
    "lora_alpha",
    "lora_bias",
    "peft_type",
    "r",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
    "use_rslora",
}
# PEFT versions differ in which defaults they write out, so a default counts as absent.
_DEFAULTS = frozenset({"null", "false", "{}", "[]", '"none"'})
_LORA_TENSOR = re.compile(r"(?P<module>[^.]+)\.lora_(?:embedding_)?(?P<side>[AB])(?:\.weight)?$")


@dataclass(frozen=True)
class AdapterFiles:
    """What a folder in PEFT's format holds; `target_modules` is sorted."""

    digest: str
    rank: int
    target_modules: tuple[str, ...]
    base_model: str | None
    method: Method


class _Config(BaseModel):
    r: Annotated[int, Field(ge=1, strict=True)]
    lora_alpha: Annotated[float, Field(allow_inf_nan=False)]
    target_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None
    rank_pattern: dict[str, int] | None = None
    use_dora: bool = False
    use_rslora: bool = False
    base_model_name_or_path: str | None = None


class _Ia3Config(BaseModel):
    target_modules: list[str]
    base_model_name_or_path: str | None = None


_Model = TypeVar("_Model", bound=BaseModel)


def inspect_adapter(folder: Path) -> AdapterFiles:
    """Read and check the adapter in `folder`, which must be in PEFT's format.

    Raises:
        WeightsError: a file is absent, a symlink, a pickle, truncated or corrupt; or the adapter is
            not a LoRA, holds NaN or infinity, or contradicts its own configuration.
    """
    return read_adapter(folder)[0]


def read_adapter(folder: Path) -> tuple[AdapterFiles, dict[str, bytes]]:
    """Do as `inspect_adapter` and return also the very bytes that were checked, by file name."""
    if not folder.is_dir():
        raise WeightsError(f"no adapter folder {folder}: give the folder that PEFT saved")
    for name in (CONFIG, WEIGHTS):
        _check_file(folder / name)
    contents = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    return _examine(folder, contents[CONFIG], contents[WEIGHTS]), contents


def _check_file(path: Path) -> None:
    if path.is_symlink():
        raise WeightsError(f"{path} is a symbolic link: put the file itself there")
    if path.is_file():
        return
    raise WeightsError(absence(path.name, [p.name for p in path.parent.iterdir()], path.parent))


def absence(name: str, present: Collection[str], place: str | Path) -> str:
    """Say that `place`, which holds the files `present`, lacks an adapter's file `name`."""
    pickles = sorted(other for other in present if Path(other).suffix in _PICKLES)
    if name == WEIGHTS and pickles:
        return (
            f"{place} holds no {WEIGHTS}, only pickle ({', '.join(pickles)}), and opening a pickle "
            "can run code: if you trust it, load it with PEFT and save it again with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    return f"{place} has no {name}: give the folder that PEFT saved"


def _examine(folder: Path, config_json: bytes, weights: bytes) -> AdapterFiles:
    settings = _parse(folder, config_json)
    if settings.get("peft_type") not in ("LORA", "IA3"):
        raise WeightsError(
            f"{folder}: peft_type is {settings.get('peft_type')!r}; "
            "'LORA' adapters can be served, 'IA3' ones profiled, and no others"
        )
    if settings["peft_type"] == "IA3":
        return _examine_ia3(folder, settings, weights)
    config = _validated(_Config, folder, settings)
    modules = _check_tensors(folder / WEIGHTS, weights, config)
    # A pattern such as "all-linear" says less than the tensors themselves.
    named = config.target_modules if isinstance(config.target_modules, list) else modules
    return AdapterFiles(
        digest=_digest(settings, weights),
        rank=config.r,
        target_modules=tuple(sorted(set(named))),
        base_model=config.base_model_name_or_path,
        method="dora" if config.use_dora else "rslora" if config.use_rslora else "lora",
    )


def _examine_ia3(folder: Path, settings: dict[str, Any], weights: bytes) -> AdapterFiles:
    config = _validated(_Ia3Config, folder, settings)
    for name, tensor in _tensors(folder / WEIGHTS, weights):
        _check_finite(folder / WEIGHTS, name, tensor["dtype"], tensor["data"])
    return AdapterFiles(
        digest=_digest(settings, weights),
        rank=1,
        target_modules=tuple(sorted(set(config.target_modules))),
        base_model=config.base_model_name_or_path,
        method="ia3",
    )


def _validated(model: type[_Model], folder: Path, settings: dict[str, Any]) -> _Model:
    try:
        return model.model_validate(settings)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(f"{folder / CONFIG}: {where}: {first['msg']}") from exc


def _parse(folder: Path, config_json: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(config_json)
    except (ValueError, RecursionError) as exc:
        raise WeightsError(
            f"{folder / CONFIG} is not JSON ({exc}): save the adapter again"
        ) from exc
    if not isinstance(settings, dict):
        raise WeightsError(f"{folder / CONFIG} holds no JSON object: save the adapter again")
    return settings


def _check_tensors(path: Path, weights: bytes, config: _Config) -> set[str]:
    """Check every tensor and return the names of the modules that have LoRA tensors."""
    modules: set[str] = set()
    for name, tensor in _tensors(path, weights):
        _check_finite(path, name, tensor["dtype"], tensor["data"])
        if match := _LORA_TENSOR.search(name):
            modules.add(match["module"])
            axis = 0 if match["side"] == "A" else 1
            _check_rank(path, name, tensor["shape"][axis : axis + 1], config)
    if not modules:
        raise WeightsError(f"{path} holds no LoRA tensors: save the adapter, not the merged model")
    return modules


def _tensors(path: Path, weights: bytes) -> list[tuple[str, dict[str, Any]]]:
    try:
        return cast("list[tuple[str, dict[str, Any]]]", deserialize(weights))
    except SafetensorError as exc:
        raise WeightsError(
            f"{path} is truncated or corrupt ({exc}): copy it again (with Git LFS: git lfs pull)"
        ) from exc


def _check_finite(path: Path, name: str, dtype: str, data: bytes) -> None:
    match dtype:
        case "BF16":  # numpy has no bfloat16: it is the upper half of a float32
            values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        case "F16" | "F32" | "F64":
            values = np.frombuffer(data, f"<f{int(dtype[1:]) // 8}")
        case _:
            raise WeightsError(
                f"{path}: {name} is {dtype}; save it as float32, float16 or bfloat16"
            )
    if not np.isfinite(values).all():
        raise WeightsError(
            f"{path}: {name} holds NaN or infinity: the training diverged, repeat it"
        )


def _check_rank(path: Path, name: str, rank: list[int], config: _Config) -> None:
    if config.rank_pattern or config.target_parameters:
        return
    if rank != [config.r]:
        raise WeightsError(
            f"{path}: {name} has rank {rank[0] if rank else 'none'}, but {CONFIG} says "
            f"r = {config.r}: the two files are not of one adapter"
        )


def _digest(settings: dict[str, Any], weights: bytes) -> str:
    kept = {
        key: sorted(value) if key in _SET_KEYS and isinstance(value, list) else value
        for key, value in settings.items()
        if key in _COMPUTING_KEYS and json.dumps(value) not in _DEFAULTS
    }
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(canonical + b"\n")
    digest.update(weights)
    return digest.hexdigest()
