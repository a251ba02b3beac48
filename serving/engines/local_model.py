"""A transformers model in this process, on GPU where there is one, in the precision that the machine computes fastest.

A processor's bfloat16 may be much faster than float32 or much slower, whatever its flags say: with SmolLM2's shapes on
two AVX-512 machines, bfloat16 took 0.4 and 3 times the time of float32 (docs/decisions.md). So it is measured, in some
milliseconds, and the answer kept in the cache folder: a second process that measured otherwise would measure every
cell of the transfer matrix again.
"""

import os
import platform
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ...adapters import AdapterFiles, BaseModelError, InputError, WeightsError, cache_folder

Precision = Literal["bfloat16", "float32"]
VARIABLE = "TRAITROUTE_PRECISION"
CLEARLY = 1.5
"""float32 is taken where it is at least so many times faster; bfloat16 needs half the memory."""


@dataclass(frozen=True)
class LocalModel:
    """A causal language model; `ends` are the tokens that end an answer."""

    model: Any
    device: str
    precision: Precision
    ends: tuple[int, ...]

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for, in tokens; None where it does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)


def open_local_model(base: Path, precision: Precision | None = None) -> LocalModel:
    """Load the model in the folder `base`; `precision` is by default the fastest one here.

    Raises:
        BaseModelError: `base` holds no causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from .decoding import keeps_all_keys, use_grouped_attention

    cuda = torch.cuda.is_available()
    precision = precision or fastest_precision()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype=getattr(torch, precision), **({} if cuda else {"attn_implementation": "eager"})
        )
    except (OSError, ValueError) as exc:
        raise BaseModelError(f"{base} holds no causal language model: {exc}") from exc
    device = "cuda" if cuda else "cpu"
    model.to(device).eval()
    if not cuda and keeps_all_keys(model):
        use_grouped_attention(model)
    ends = model.generation_config.eos_token_id
    ends = (ends,) if isinstance(ends, int) else tuple(ends or ())
    return LocalModel(model, device, precision, ends)


def peft_config(files: AdapterFiles) -> Any:
    """PEFT's configuration of an adapter, built from its tensors: PEFT would run patterns of its own file."""
    from peft import IA3Config, LoraConfig

    kind = IA3Config if files.method == "ia3" else LoraConfig
    return kind(**files.peft_settings(), inference_mode=True)


def load_weights(model: Any, folder: Path, name: str, device: str) -> None:
    """Load the weights in `folder` into the adapter `name` of `model`, a PEFT model that has it already.

    Raises:
        WeightsError: tensors are missing or have no place in the model, which PEFT would ignore.
    """
    result = model.load_adapter(str(folder), name, torch_device=device)
    if lost := sorted([*result.unexpected_keys, *result.missing_keys]):
        raise WeightsError(
            f"its tensors are not those of this base model's layers, {lost[0]} for one, and a part of an adapter is "
            "none"
        )


@cache
def fastest_precision() -> Precision:
    """TRAITROUTE_PRECISION where it is set, else bfloat16, except on a CPU that is clearly faster in float32.

    Raises:
        InputError: TRAITROUTE_PRECISION is neither of the two.
    """
    if wanted := os.environ.get(VARIABLE):
        if wanted not in get_args(Precision):
            raise InputError(f"{VARIABLE} is bfloat16 or float32, not {wanted!r}")
        return cast("Precision", wanted)
    import torch

    if torch.cuda.is_available():
        return "bfloat16"
    file = cache_folder() / f"precision-{platform.node()}-torch-{torch.__version__}"
    return _cached(file) or _cache(file, _measured())


def _cached(file: Path) -> Precision | None:
    try:
        word = file.read_text()
    except OSError:
        return None
    return cast("Precision", word) if word in get_args(Precision) else None


def _cache(file: Path, measured: Precision) -> Precision:
    """Write `measured` to the cache, or return what another process wrote first; without a cache, `measured`."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".precision-", dir=file.parent) as scratch:
            draft = Path(scratch) / "word"
            draft.write_text(measured)
            with suppress(FileExistsError):
                os.link(draft, file)
    return _cached(file) or measured


def _measured() -> Precision:
    import torch

    threads = torch.get_num_threads()
    # With several threads the times would depend on what else the machine does.
    torch.set_num_threads(1)
    try:
        slower = _seconds(torch.bfloat16) / _seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)
    return "float32" if slower > CLEARLY else "bfloat16"


def _seconds(dtype: Any) -> float:
    """The best of several products of the shape that training and prefill make."""
    import torch

    layer = torch.nn.Linear(576, 1536, bias=False, dtype=dtype)
    tokens = torch.zeros(400, 576, dtype=dtype)

    def once() -> float:
        start = time.perf_counter()
        layer(tokens)
        return time.perf_counter() - start

    with torch.inference_mode():
        return min(once() for _ in range(20))
