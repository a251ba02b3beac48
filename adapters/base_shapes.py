"""The shapes of a base model's layers: what an adapter's tensors must fit, known before any model is loaded.

They are read from the headers of the base model's own files, or where those are not at hand from the adapters that
have been measured on it. What neither knows is left to whoever loads the adapter.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .adapter_files import CONFIG, WEIGHTS
from .errors import WeightsError

Shape = tuple[int, int]
_PEFT_PREFIX = "base_model.model."
_SIDE = re.compile(r"\.lora_(?P<side>[AB])(?:\.weight)?$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class BaseShapes:
    """Features out of and into each linear layer, by its name; `complete` where all layers are known."""

    layers: dict[str, Shape] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def of_folder(cls, folder: Path) -> "BaseShapes":
        """Read the headers of a base model's safetensors; of a quantised one, whose shapes are packed, nothing."""
        layers: dict[str, Shape] = {}
        if "quantization_config" in _settings(folder / "config.json"):
            return cls()
        for file in sorted(folder.glob("*.safetensors")):
            shapes = _shapes(file)
            layers |= {n.removesuffix(".weight"): (s[0], s[1]) for n, s in shapes if len(s) == 2}
        return cls(layers, complete=bool(layers))

    @classmethod
    def of_adapters(cls, folders: Iterable[Path]) -> "BaseShapes":
        """Read what adapters that are known to fit tell of the layers that they change."""
        return cls({name: shape for f in folders for name, shape in lora_layers(f).items()})

    def check(self, folder: Path) -> None:
        """Check that the adapter in `folder` fits.

        Raises:
            WeightsError: a layer has other shapes in the base model, or is not there.
        """
        turned = _settings(folder / CONFIG).get("fan_in_fan_out") is True
        ranges = {_NUMBER.sub("N", name) for name in self.layers} if self.complete else set()
        for name, shape in lora_layers(folder).items():
            wanted = self.layers.get(name)
            if wanted is None and _NUMBER.sub("N", name) in ranges:
                raise WeightsError(
                    f"{folder}: it changes {name}, which this base model lacks: it was trained for another one"
                )
            if wanted is not None and shape != (wanted[::-1] if turned else wanted):
                raise WeightsError(
                    f"{folder}: {name} takes {shape[1]} features to {shape[0]}, in this base model {wanted[1]} to "
                    f"{wanted[0]}: it was trained for another one"
                )


def lora_layers(folder: Path) -> dict[str, Shape]:
    """Return the features out of and into each linear layer that the LoRA in `folder` changes.

    Raises:
        WeightsError: a layer has one half of its pair of matrices, or two that do not belong together.
    """
    halves: dict[str, dict[str, list[int]]] = {}
    for name, shape in _shapes(folder / WEIGHTS):
        if match := _SIDE.search(name):
            layer = name[: match.start()].removeprefix(_PEFT_PREFIX)
            halves.setdefault(layer, {})[match["side"]] = shape
    return {
        layer: _joined(folder, layer, pair)
        for layer, pair in halves.items()
        # Convolutions have more dimensions, and are left to whoever loads them.
        if all(len(shape) == 2 for shape in pair.values())
    }


def _joined(folder: Path, layer: str, pair: dict[str, list[int]]) -> Shape:
    if len(pair) < 2:
        raise WeightsError(f"{folder}: {layer} has lora_{next(iter(pair))} alone: save it again")
    (rank, width), (height, other) = pair["A"], pair["B"]
    if rank != other:
        raise WeightsError(
            f"{folder}: {layer} has lora_A of rank {rank} and lora_B of rank {other}: save it again"
        )
    return height, width


def _shapes(file: Path) -> list[tuple[str, list[int]]]:
    try:
        # Only the header is read.
        with safe_open(file, framework="numpy") as tensors:
            return [(name, tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118
    except SafetensorError as exc:
        raise WeightsError(f"{file} is truncated or corrupt ({exc}): copy it again") from exc


def _settings(file: Path) -> dict[str, Any]:
    return json.loads(file.read_bytes()) if file.is_file() else {}
