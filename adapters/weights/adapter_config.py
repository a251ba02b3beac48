"""The configuration of an adapter in PEFT's format: what is read of it, and what makes a sound adapter unservable.

vLLM and PEFT run some of its values as regular expressions. An untrusted one is never run on a server: names must be
plain, and only `target_modules` may be a pattern, which is matched once, in a process of its own, and which no server
of ours reads (`AdapterFiles.peft_settings`).
"""

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..adapter import Method
from ..errors import WeightsError
from .tensor_file import is_plain, parse_object, shown

HIGHEST_RANK = 512
"""The highest rank that vLLM serves."""
_ALL_LINEAR = "all-linear"
LARGEST_CONFIG = 2**20
"""Bytes."""
LONGEST_PATTERN = 4000
_SECONDS, _MEMORY = 1, 256 * 2**20
# The process may wait long for its turn on a busy machine, but not compute for long.
_WAIT_S = 20
_PROGRAM = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
pattern, names = json.load(sys.stdin)
matches = re.compile(pattern).fullmatch
print(next((name for name in names if not matches(name)), ""))
"""
_SET_KEYS = frozenset(
    {"exclude_modules", "feedforward_modules", "layers_to_transform", "modules_to_save", "target_modules"}
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
# 0.32, `serving/embedded/mixed_model.py`); it is better to refuse them when an adapter is added.
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
# These only initialise the LoRA; others (PiSSA, OLoRA, CorDA, LoftQ) change the base model. vLLM's list.
_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"{shown(name)} is no module's name: use letters, digits, '_' and '.'")
    return name


def _plain_pattern(key: str) -> str:
    """A key of `rank_pattern`: PEFT and vLLM run it as a regular expression, so only a name is accepted."""
    if not is_plain(key.removeprefix("^").replace("\\.", ".")):
        raise ValueError(f"{shown(key)} is no module's name: give each module by its name")
    return key


_Name = Annotated[str, AfterValidator(_plain)]
_Key = Annotated[str, AfterValidator(_plain_pattern)]
_Rank = Annotated[int, Field(ge=1, le=HIGHEST_RANK)]
_Alpha = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Index = Annotated[int, Field(ge=0, lt=10_000)]


class _Config(BaseModel):
    """What is read of a configuration of any method; with the fields of each method, all that the digest covers."""

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
        """The regular expression by which PEFT selects modules; it is untrusted and must not be run here."""
        given = self.target_modules
        return given if isinstance(given, str) and given.lower() != _ALL_LINEAR else None

    def selects(self, layer: str) -> bool:
        """Whether PEFT changes `layer`, if the base model has it; for a configuration without `pattern`."""
        ends, excluded = _ends(layer), self.exclude_modules or []
        if layer == excluded or (isinstance(excluded, list) and not ends.isdisjoint(excluded)):
            return False
        named = self.target_modules
        if named and isinstance(named, list) and ends.isdisjoint(named):
            return False
        return not (depths := self._depths()) or depth(layer) in depths

    def _depths(self) -> set[int]:
        given = self.layers_to_transform
        return {given} if isinstance(given, int) else set(given or ())

    def check_layers(self, ranks: Mapping[str, int]) -> None:
        """Check that it names exactly the layers that have tensors; `ranks` by layer.

        Raises:
            ValueError: it does not, so part of the adapter is missing.
        """
        if not self.target_modules:
            raise ValueError("target_modules: names no module: save the adapter again with PEFT")
        if isinstance(self.target_modules, list):
            check_named("target_modules", self.target_modules, ranks)
        self._check_indices(ranks)
        _Pattern("alpha_pattern", self.alpha_pattern).check(ranks)
        pattern = _Pattern("rank_pattern", self.rank_pattern)
        pattern.check(ranks)
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
        wanted, present = self._depths(), {depth(name) for name in layers}
        if wanted and present != wanted:
            raise ValueError(
                f"layers_to_transform: names the layers {sorted(wanted)[:20]}, but there are tensors for "
                f"{sorted(present)[:20]}: the two files are not of one adapter"
            )


class _Pattern:
    """The values that `rank_pattern` or `alpha_pattern` gives to layers, by the rule of PEFT and vLLM.

    The first key counts that is an end of a layer's path, or after `^` the whole path.
    """

    def __init__(self, setting: str, values: Mapping[str, Any] | None) -> None:
        self._setting = setting
        self._values: dict[str, tuple[int, Any]] = {}
        for place, (key, value) in enumerate((values or {}).items()):
            self._values.setdefault(key.replace("\\.", "."), (place, value))

    def _matching(self, layer: str) -> Iterator[str]:
        return (key for key in (*_ends(layer), f"^{layer}") if key in self._values)

    def value(self, layer: str, default: Any) -> Any:
        """Return the layer's value."""
        return min((self._values[key] for key in self._matching(layer)), default=(0, default))[1]

    def check(self, layers: Iterable[str]) -> None:
        """Check that each key matches at least one of `layers`."""
        lost = self._values.keys() - {key for layer in layers for key in self._matching(layer)}
        if lost:
            raise ValueError(
                f"{self._setting}: {shown(min(lost))} matches no layer that has tensors: save the adapter again"
            )


def check_named(key: str, names: Collection[str], layers: Collection[str]) -> None:
    """Check that each name is the end of a layer's path, and that each layer's path ends in one."""
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
    """Return the first number in a layer's path, or -1."""
    return next((int(part) for part in layer.split(".") if part.isdecimal()), -1)


def _ends(layer: str) -> set[str]:
    """The path of a layer, and its ends: what remains without the first parts."""
    parts = layer.split(".")
    return {".".join(parts[i:]) for i in range(len(parts))}


@dataclass(frozen=True)
class ParsedConfig:
    """A configuration, the bytes of it that the digest covers, and why no server of ours can serve it, if so."""

    settings: LoraConfig | Ia3Config
    canonical: bytes
    unservable: str | None


def parse_config(data: bytes, path: Path) -> ParsedConfig:
    """Read the configuration in `data`.

    Raises:
        WeightsError: it is too large, no JSON object in UTF-8, has a duplicate key, or a setting is not accepted.
    """
    settings = _parse_json(data, path)
    kind = settings.get("peft_type")
    if kind not in ("LORA", "IA3"):
        raise WeightsError(
            f"{path.parent}: peft_type is {shown(kind)}; 'LORA' adapters can be served, 'IA3' ones profiled, and no "
            "others"
        )
    try:
        config = (LoraConfig if kind == "LORA" else Ia3Config).model_validate(settings)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        # For a list or a single value, the error about the kind that was not given is of no use.
        first = next((e for e in errors if not e["type"].endswith("_type")), errors[0])
        why = first["msg"].removeprefix("Value error, ")
        # The first part of the location is one of our keys; what follows is untrusted.
        raise WeightsError(f"{path}: {first['loc'][0]}: {why}") from exc
    return ParsedConfig(config, _canonical(settings), _unservable(settings))


def _parse_json(data: bytes, path: Path) -> dict[str, Any]:
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


def _unservable(settings: Mapping[str, Any]) -> str | None:
    """Return why no server of ours can serve an adapter with these settings, or None."""
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


def _canonical(settings: Mapping[str, Any]) -> bytes:
    """Return the settings that change what the adapter computes, in a form that is the same for equal adapters."""
    kept = {
        key: sorted(value) if key in _SET_KEYS and isinstance(value, list) else value
        for key, value in settings.items()
        if key in _COMPUTING_KEYS and json.dumps(value) not in _DEFAULTS
    }
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def check_full_match(pattern: str, layers: Collection[str]) -> None:
    """Check that `pattern` matches the whole path of each of `layers`, as PEFT asks of `target_modules`.

    It is untrusted and may never end, so it is matched in a process of its own.

    Raises:
        WeightsError: it does not, is no regular expression, or takes too long.
    """
    what = f"target_modules: the pattern {shown(pattern)}"
    cure = "give the modules' names in a list"
    if len(pattern) > LONGEST_PATTERN:
        raise WeightsError(f"{what} is longer than {LONGEST_PATTERN} characters: {cure}")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM],
            input=json.dumps([pattern, list(layers)]),
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise WeightsError(f"{what} takes more than {_WAIT_S} s: {cure}") from exc
    if done.returncode < 0:
        raise WeightsError(f"{what} takes more than {_SECONDS} s: {cure}")
    if done.returncode > 0:
        raise WeightsError(f"{what} is no regular expression that can be matched: {cure}")
    if layer := done.stdout.strip():
        raise WeightsError(f"{what} does not match {layer}, for which there are tensors: {cure}")
