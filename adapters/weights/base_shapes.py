"""The layers of a base model, which an adapter's tensors must fit, known before any model is loaded.

They are read from the headers of the base model's own files. Where those are not at hand, the adapters that were
measured on it show some layers, and others are accepted where well-known models have them. A server silently ignores a
layer that it does not have, and so would serve a part of the adapter: an unknown layer is refused.
"""

import json
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from .adapter_config import Ia3Config, LoraConfig, depth
from .adapter_files import AdapterFiles, Layer, stored_layers

Shape = tuple[int, int]
_PREFIXES = ("model", "transformer", "gpt_neox")
"""Prefixes that transformers adds to the names in files saved without them, which then begin with `_INNER`."""
_INNER = ("h", "layers", "decoder")
_HEADS, _EMBEDDINGS = ("lm_head", "embed_out"), ("embed_tokens", "wte", "embed_in")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "dense")
_MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2")
_NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_WELL_KNOWN = {
    "model.layers.N.self_attn": _ATTENTION,
    "model.layers.N.mlp": _MLP,
    "model.layers.N.mlp.experts.N": _MLP,
    "model.layers.N.block_sparse_moe.experts.N": ("w1", "w2", "w3"),
    "model.decoder.layers.N": ("fc1", "fc2"),
    "model.decoder.layers.N.self_attn": _ATTENTION,
    "transformer.h.N.attn": ("c_attn", "c_proj"),
    "transformer.h.N.mlp": ("c_fc", "c_proj", *_NEOX),
    "transformer.h.N.self_attention": _NEOX,
    "gpt_neox.layers.N.attention": _NEOX,
    "gpt_neox.layers.N.mlp": _NEOX,
}
_FAMILIES = frozenset(
    [f"{block}.{name}" for block, names in _WELL_KNOWN.items() for name in names]
    + [f"{prefix}.{name}" for prefix in _PREFIXES for name in _EMBEDDINGS]
    + list(_HEADS)
)
SAMPLED = 8
"""How many measured adapters are read: a few name all layers that any of them changes."""


@dataclass(frozen=True)
class BaseShapes:
    """Features out of and into each layer, by its name, None where they are packed; `complete` where all are known."""

    layers: dict[str, Shape | None] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def of_folder(cls, folder: Path) -> "BaseShapes":
        """Read the headers of a base model's safetensors; of a quantised one only the names are known."""
        layers: dict[str, Shape | None] = {}
        packed = _is_quantised(folder / "config.json")
        for file in sorted(folder.glob("*.safetensors")):
            for name, shape in _shapes(file):
                layer, _, last = name.rpartition(".")
                if packed:
                    layers[layer] = None
                elif last == "weight" and len(shape) == 2:
                    layers[layer] = (shape[0], shape[1])
        return cls(layers, complete=bool(layers))

    @classmethod
    def known(cls, folder: Path | None, measured: Iterable[Path]) -> "BaseShapes":
        """Read the base model's own `folder`, or where that has no weights, the folders of adapters measured on it."""
        if folder is not None and (shapes := cls.of_folder(folder)).complete:
            return shapes
        return cls.of_adapters(islice(measured, SAMPLED))

    @classmethod
    def of_adapters(cls, folders: Iterable[Path]) -> "BaseShapes":
        """Read the layers that measured adapters change."""
        layers: dict[str, Layer] = {}
        for folder in folders:
            # One that this reader would refuse shows nothing.
            with suppress(WeightsError, OSError):
                layers |= stored_layers(folder)
        return cls({name: _shape(each) for name, each in layers.items()})

    def check(self, files: AdapterFiles) -> None:
        """Check that each layer of the adapter is one of the base model, and fits.

        Raises:
            WeightsError: a layer has other shapes in the base model, or is not known to be there; or the adapter lacks
                layers that it should change.
        """
        likely = None if self.complete else self._likely(files)
        places: set[str] = set()
        for name, layer in files.layers.items():
            if (place := self._find(name)) is not None:
                _check_fits(name, layer, files, self.layers[place])
                places.add(place)
            elif likely is None:
                raise WeightsError(
                    f"it changes {name}, which this base model lacks: it was trained for another one, or its keys "
                    "are not as PEFT saves them"
                )
            elif not likely.has(name):
                raise WeightsError(
                    f"it changes {name}, and no such layer is known of the base model, whose files are not at hand: "
                    "give its keys as PEFT saves them, or add it where the base model is (--base FOLDER)"
                )
        if self.complete:
            self._check_whole(files.config, places)

    def _check_whole(self, config: LoraConfig | Ia3Config, places: set[str]) -> None:
        """Check that no layer is missing: a file may have been saved, or truncated, with a part of them."""
        if not isinstance(config, LoraConfig) or config.pattern is not None:
            return
        families = {_family(place) for place in places}
        lost = [n for n in self.layers if n not in places and _family(n) in families]
        if (name := next(filter(config.selects, lost), None)) is not None:
            raise WeightsError(
                f"by its configuration it changes {name}, but there are no tensors for it, so part of the adapter is "
                "missing: save it again"
            )

    def _find(self, name: str) -> str | None:
        """Return the layer that `name` refers to; files may leave out the model's own prefix, and a tied head."""
        first, _, rest = name.partition(".")
        if name in self.layers and first not in _INNER:
            return name
        if first in _PREFIXES and rest in self.layers and not self._has_prefix(first):
            return rest
        if name in _HEADS and self.complete:
            return next((n for n in self.layers if n.rpartition(".")[2] in _EMBEDDINGS), None)
        return None

    def _has_prefix(self, first: str) -> bool:
        return any(name.startswith(f"{first}.") for name in self.layers)

    def _likely(self, files: AdapterFiles) -> "_Likely":
        measured = {_family(name) for name in self.layers}
        # A module that this base model has in an unusual place is in no well-known place.
        placed = {family.rpartition(".")[2] for family in measured - _FAMILIES}
        others = {family for family in _FAMILIES if family.rpartition(".")[2] not in placed}
        # Where nothing at all is known of the base model, the first numbered layer shows its stem.
        names = self.layers or [name for name in files.layers if depth(name) >= 0][:1]
        deepest = max(map(depth, self.layers), default=None)
        return _Likely(measured | others, {_stem(name) for name in names}, deepest)


@dataclass(frozen=True)
class _Likely:
    """The layers that a base model may have besides the known ones: of these families and stems, up to this depth."""

    families: Set[str]
    stems: Set[str]
    deepest: int | None

    def has(self, name: str) -> bool:
        placed = depth(name) < 0 or _stem(name) in self.stems
        shallow = self.deepest is None or depth(name) <= self.deepest
        return placed and shallow and _family(name) in self.families


def _check_fits(name: str, layer: Layer, files: AdapterFiles, wanted: Shape | None) -> None:
    turned = bool(files.config.fan_in_fan_out) or layer.embedding
    if wanted is not None and _shape(layer) != (wanted[::-1] if turned else wanted):
        raise WeightsError(
            f"{name} takes {layer.features_in} features to {layer.features_out}, in this base model {wanted[1]} to "
            f"{wanted[0]}: it was trained for another one"
        )


def _shape(layer: Layer) -> Shape:
    return layer.features_out, layer.features_in


def _family(name: str) -> str:
    """The name with N for each number: layers of one family have the same role at different depths."""
    return ".".join("N" if part.isdecimal() else part for part in name.split("."))


def _stem(name: str) -> str:
    """What precedes the first number in a name."""
    return _family(name).partition(".N.")[0]


def _shapes(file: Path) -> list[tuple[str, list[int]]]:
    try:
        # Only the header is read.
        with safe_open(file, framework="numpy") as tensors:
            return [(name, tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118
    except SafetensorError as exc:
        raise WeightsError(f"{file} is truncated or corrupt ({exc}): copy it again") from exc


def _is_quantised(file: Path) -> bool:
    return file.is_file() and "quantization_config" in json.loads(file.read_bytes())
