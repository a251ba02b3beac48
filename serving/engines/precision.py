"""Which floating-point type this machine computes fastest.

A processor's bfloat16 may be much faster than float32 or much slower, whatever its flags say: with
SmolLM2's shapes on two AVX-512 machines, bfloat16 took 0.4 and 3 times the time of float32
(docs/decisions.md). So it is measured, in some milliseconds, and the answer kept in the cache folder:
a second process that found otherwise would measure every cell again.
"""

import os
import platform
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ...adapters import InputError, cache_folder

Precision = Literal["bfloat16", "float32"]
VARIABLE = "TRAITROUTE_PRECISION"
CLEARLY = 1.5
"""float32 is taken where it is at least so many times faster; bfloat16 needs half the memory."""


@cache
def fastest_precision() -> Precision:
    """What TRAITROUTE_PRECISION says, else bfloat16, except on a CPU clearly faster in float32.

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
    return _kept(file) or _keep(file, _measured())


def _kept(file: Path) -> Precision | None:
    try:
        word = file.read_text()
    except OSError:
        return None
    return cast("Precision", word) if word in get_args(Precision) else None


def _keep(file: Path, measured: Precision) -> Precision:
    """Keep `measured`, or return what another process kept first; without a cache it stands as it is."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".precision-", dir=file.parent) as scratch:
            draft = Path(scratch) / "word"
            draft.write_text(measured)
            with suppress(FileExistsError):
                os.link(draft, file)
    return _kept(file) or measured


def _measured() -> Precision:
    import torch

    threads = torch.get_num_threads()
    # Threads wait for each other, so that on a busy machine their times say little.
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
