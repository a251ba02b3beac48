"""The configuration of an adapter in PEFT's format: what is taken of it, and what keeps a sound adapter from being served.

vLLM and PEFT run some of its values as regular expressions. A stranger's is never run on a server: names must be plain,
and of patterns only `target_modules` may be one, which no server of ours reads (`AdapterFiles.peft_settings`).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..adapter import Method
from ..errors import WeightsError
from .tensor_file import is_plain, parse_object, shown

HIGHEST_RANK = 512
"""What vLLM serves at most."""
_ALL_LINEAR = "all-linear"
LARGEST_CONFIG = 2**20
"""Bytes."""
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

_RETRAIN = "train it again without"
# vLLM refuses most of these when it loads an adapter, and the embedded server all (`vllm/lora/peft_helper.py` of vLLM
# 0.32, `serving/embedded/mixed_model.py`); what no server loads is better refused when it is added.
_UNSERVED = {
    "use_dora": f"it is a DoRA, whose magnitudes vLLM cannot apply: {_RETRAIN} use_dora",
    "lora_bias": f"it has a bias of its own: {_RETRAIN} lora_bias",
    "modules_to_save": f"it replaces whole layers, for all who share a batch: {_RETRAIN} modules_to_save",
    "alora_invocation_tokens": f"it is an activated LoRA: {_RETRAIN} alora_invocation_tokens",
    "layer_replication": f"it repeats layers: {_RETRAIN} layer_replication",
    "use_bdlora": f"it is a block-diagonal LoRA: {_RETRAIN} use_bdlora",
    "use_qalora": f"it is a QALoRA: {_RETRAIN} use_qalora",
    "kasa_config": f"it is a KaSA, which changes the base model: {_RETRAIN} kasa_config",
    "arrow_config": f"it routes between adapters of its own: {_RETRAIN} arrow_config",
    "target_parameters": f"it changes parameters that are no layers: {_RETRAIN} target_parameters",
    "trainable_token_indices": f"it replaces embeddings of tokens: {_RETRAIN} trainable_token_indices",
}
# These only begin the training; others (PiSSA, OLoRA, CorDA, LoftQ) change the base model. vLLM's list.
_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"{shown(name)} is no module's name: use letters, digits, '_' and '.'")
    return name


def _plain_pattern(key: str) -> str:
    """A key of `rank_pattern`: PEFT and vLLM run it as a regular expression, so no more is taken than a name."""
    if not is_plain(key.removeprefix("^").replace("\\.", ".")):
        raise ValueError(f"{shown(key)} is no module's name: give each module by its name")
    return key


_Name = Annotated[str, AfterValidator(_plain)]
_Key = Annotated[str, AfterValidator(_plain_pattern)]
_Rank = Annotated[int, Field(ge=1, le=HIGHEST_RANK)]
_Alpha = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Index = Annotated[int, Field(ge=0, lt=10_000)]


class _Config(BaseModel):
    """What is taken of a configuration of any method; with what the methods add, all that the digest covers."""

    model_config = ConfigDict(strict=True)

    target_parameters: list[str] | None = None
    feedforward_modules: list[_Name] | None = None
    exclude_modules: list[_Name] | _Name | None = None
    layers_to_transform: list[_Index] | _Index | None = None
    layers_pattern: list[_Name] | _Name | None = None
    rank_pattern: dict[_Key, _Rank] | None = None
    alpha_pattern: dict[_Key, _Alpha] | None = None
    bias: str | None = None
    fan_in_fan_out: bool | None = None
    use_dora: bool | None = None
    use_rslora: bool | None = None
    use_qalora: bool | None = None
    lora_bias: bool | None = None
    modules_to_save: list[str] | None = None
    alora_invocation_tokens: list[int] | None = None
    layer_replication: list[list[int]] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    base_model_name_or_path: str | None = None


class Ia3Config(_Config):
    """The configuration of an IA3."""

    target_modules: list[_Name]
    r: _Rank | None = None
    lora_alpha: _Alpha | None = None


class LoraConfig(_Config):
    """The configuration of a LoRA."""

    r: _Rank
    lora_alpha: _Alpha
    target_modules: list[_Name] | str | None = None

    @property
    def method(self) -> Method:
        """The method, by its name here."""
        return "dora" if self.use_dora else "rslora" if self.use_rslora else "lora"

    @property
    def pattern(self) -> str | None:
        """The regular expression by which PEFT finds the modules, which is a stranger's and none of ours to run."""
        given = self.target_modules
        return given if isinstance(given, str) and given.lower() != _ALL_LINEAR else None

    def selects(self, layer: str) -> bool:
        """Whether PEFT changes `layer` by this, if the base model has it; needs a configuration without `pattern`."""
        own, excluded = _ends(layer), self.exclude_modules or []
        if layer == excluded or (isinstance(excluded, list) and not own.isdisjoint(excluded)):
            return False
        if self.target_modules and not isinstance(self.target_modules, str):
            return not own.isdisjoint(self.target_modules) and self._is_in_depth(layer)
        return self._is_in_depth(layer)

    def _is_in_depth(self, layer: str) -> bool:
        return not (depths := self._depths()) or depth(layer) in depths

    def _depths(self) -> set[int]:
        given = self.layers_to_transform
        return {given} if isinstance(given, int) else set(given or ())

    def check_layers(self, ranks: Mapping[str, int]) -> None:
        """Check that it speaks of the layers that there are tensors for, and of no others; `ranks` by layer.

        Raises:
            ValueError: it does not, and so part of the adapter is missing.
        """
        if not self.target_modules:
            raise ValueError("target_modules: names no module: save the adapter again with PEFT")
        if isinstance(self.target_modules, list):
            check_named("target_modules", self.target_modules, ranks)
        self._check_indices(ranks)
        _Pattern("alpha_pattern", self.alpha_pattern).check(ranks)
        (pattern := _Pattern("rank_pattern", self.rank_pattern)).check(ranks)
        for layer, rank in ranks.items():
            if rank != (wanted := pattern.value(layer, self.r)):
                raise ValueError(
                    f"{layer} has rank {rank}, but the configuration says r = {wanted}: "
                    "the two files are not of one adapter"
                )
        stated, highest = max([self.r, *(self.rank_pattern or {}).values()]), max(ranks.values())
        if stated > highest:
            raise ValueError(
                f"r: rank {stated} is no layer's, the highest is {highest}, and vLLM asks for room for {stated}: "
                f"set r to {highest}, and take out of rank_pattern what counts for no layer"
            )

    def _check_indices(self, layers: Collection[str]) -> None:
        wanted, found = self._depths(), {depth(name) for name in layers}
        if wanted and found != wanted:
            raise ValueError(
                f"layers_to_transform: names the layers {sorted(wanted)[:20]}, but there are tensors for "
                f"{sorted(found)[:20]}: the two files are not of one adapter"
            )


_Model = TypeVar("_Model", bound=_Config)


class _Pattern:
    """What `rank_pattern` or `alpha_pattern` gives to layers, by the rule of PEFT and vLLM: the first key counts that ends
    a layer's path, after `^` the whole of it."""

    def __init__(self, setting: str, values: Mapping[str, Any] | None) -> None:
        self._setting = setting
        self._values: dict[str, tuple[int, Any]] = {}
        for place, (key, value) in enumerate((values or {}).items()):
            self._values.setdefault(key.replace("\\.", "."), (place, value))

    def _matching(self, layer: str) -> Iterator[str]:
        return (key for key in (*_ends(layer), f"^{layer}") if key in self._values)

    def value(self, layer: str, default: Any) -> Any:
        """What the layer gets."""
        return min((self._values[key] for key in self._matching(layer)), default=(0, default))[1]

    def check(self, layers: Iterable[str]) -> None:
        """Check that each key means one of `layers`, or more."""
        lost = self._values.keys() - {key for layer in layers for key in self._matching(layer)}
        if lost:
            raise ValueError(
                f"{self._setting}: {shown(min(lost))} matches no layer that has tensors: save the adapter again"
            )


def check_named(key: str, names: Collection[str], layers: Collection[str]) -> None:
    """Check that each name is the end of a layer's path, and each layer's path ends in one."""
    wanted = set(names)
    lost = wanted - {end for layer in layers for end in _ends(layer) if end in wanted}
    if lost:
        raise ValueError(
            f"{key}: names {shown(min(lost))}, but there are no tensors for it, so part of the adapter is missing: "
            f"save it again, or take the name out if the base model has no such module"
        )
    other = next((layer for layer in layers if wanted.isdisjoint(_ends(layer))), None)
    if other is not None:
        raise ValueError(
            f"{key}: does not name {other}, for which there are tensors: the two files are not of one adapter"
        )


def depth(layer: str) -> int:
    """The first number in a layer's path, or -1."""
    return next((int(part) for part in layer.split(".") if part.isdecimal()), -1)


def _ends(layer: str) -> set[str]:
    """The path of a layer, and what remains of it without its first parts."""
    parts = layer.split(".")
    return {".".join(parts[i:]) for i in range(len(parts))}


def parse_settings(data: bytes, path: object) -> dict[str, Any]:
    """Read the JSON object in `data`.

    Raises:
        WeightsError: it is too large, no JSON object in UTF-8, or says something twice.
    """
    if len(data) > LARGEST_CONFIG:
        raise WeightsError(f"{path} is larger than the {LARGEST_CONFIG} bytes that are taken")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise WeightsError(
            f"{path} is not JSON as servers read it, for it begins with a byte order mark: save it as UTF-8 without one"
        )
    try:
        return parse_object(data.strip(b" \t\r\n"))
    except UnicodeDecodeError as exc:
        raise WeightsError(f"{path} is not JSON in UTF-8: save it as UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        raise WeightsError(f"{path} is not JSON ({exc}): save the adapter again") from exc


def validated(model: type[_Model], settings: dict[str, Any], path: object) -> _Model:
    """The settings as `model` wants them.

    Raises:
        WeightsError: one is not; it is named.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        # Of a list or a single value the kind that was not given says nothing.
        first = next((e for e in errors if not e["type"].endswith("_type")), errors[0])
        why = first["msg"].removeprefix("Value error, ")
        # What comes after the key is a stranger's.
        raise WeightsError(f"{path}: {first['loc'][0]}: {why}") from exc


def unservable(settings: Mapping[str, Any]) -> str | None:
    """Why no server of ours can serve an adapter with these settings, or None."""
    if settings["peft_type"] != "LORA":
        return f"it is of type {settings['peft_type']}, and LoRA is served alone"
    start = settings.get("init_lora_weights")
    if not (start is None or isinstance(start, bool) or start in _HARMLESS_STARTS):
        return (
            f"its training began with init_lora_weights={shown(start)}, which changes the base model: convert it by "
            "PEFT's path_initial_model_for_weight_conversion"
        )
    if (bias := settings.get("bias") or "none") != "none":
        return f"it changes biases of the base model: {_RETRAIN} bias={shown(bias)}"
    return next((why for key, why in _UNSERVED.items() if settings.get(key)), None)


def canonical(settings: Mapping[str, Any]) -> bytes:
    """The settings that change what the adapter computes, in one form; those of two equal adapters are equal."""
    kept = {
        key: sorted(value) if key in _SET_KEYS and isinstance(value, list) else value
        for key, value in settings.items()
        if key in _COMPUTING_KEYS and json.dumps(value) not in _DEFAULTS
    }
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
