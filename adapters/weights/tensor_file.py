"""Reads an untrusted safetensors file once, from its beginning to its end, in constant memory.

The header is bounded before it is parsed, and the numbers are read in chunks and never mapped into memory: truncating a
mapped file would kill the process that reads it.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ..errors import WeightsError

LARGEST_HEADER = 4 * 2**20
"""Bytes: twice what the names of `MOST_TENSORS` take."""
MOST_TENSORS = 10_000
LONGEST_NAME, MOST_PARTS = 200, 24
_CHUNK = 2**20
_LENGTH_BYTES = 8
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
# A number whose exponent bits are all ones is NaN or infinite.
_NUMBERS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor as the header describes it: its `size` bytes begin at `start`, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def shown(value: Any) -> str:
    """Format an untrusted value for a message: as one short line of plain ASCII."""
    text = ascii(value[:200] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_plain(name: str) -> bool:
    """Whether `name` consists of parts of letters, digits and `_` with dots between them, and is not too long."""
    parts = name.split(".") if len(name) <= LONGEST_NAME else []
    return 0 < len(parts) <= MOST_PARTS and all(p and _LETTERS.issuperset(p) for p in parts)


def read_header(file: IO[bytes], path: object) -> tuple[list[Tensor], bytes]:
    """Read the header of `file`: its tensors in the order of their places, and the header itself.

    Raises:
        WeightsError: the file is truncated or corrupt, has a number format that cannot be checked, names that are not
            plain, or too many tensors.
    """
    size = os.fstat(file.fileno()).st_size
    head = _read_exactly(file, _LENGTH_BYTES, path)
    length = int.from_bytes(head, "little")
    if length > min(LARGEST_HEADER, size):
        raise _corrupt(path, f"its header would take {length} bytes")
    header = _read_exactly(file, length, path)
    tensors = _parse(header, path)
    _check_places(tensors, size - _LENGTH_BYTES - length, path)
    return tensors, head + header


def read_tensors(file: IO[bytes], path: object, *, sinks: Sequence[Callable[[bytes], object]]) -> list[Tensor]:
    """Read `file` to its end, pass all its bytes to each of `sinks`, and return its tensors.

    Raises:
        WeightsError: see `read_header`; or a number is NaN or infinite.
    """
    tensors, head = read_header(file, path)
    for sink in sinks:
        sink(head)
    for tensor in tensors:
        for start in range(0, tensor.size, _CHUNK):
            chunk = _read_exactly(file, min(_CHUNK, tensor.size - start), path)
            for sink in sinks:
                sink(chunk)
            _check_finite(chunk, tensor, path)
    if read_bytes(file, 1, path):
        raise _corrupt(path, "it grew while it was read")
    return tensors


def _parse(header: bytes, path: object) -> list[Tensor]:
    # Every tensor is an object with two lists. Parsing millions of brackets would take many times their memory.
    if header.count(b"{") + header.count(b"[") > 3 * MOST_TENSORS + 2:
        raise WeightsError(f"{path} holds more than {MOST_TENSORS} tensors, which no adapter does")
    try:
        entries = parse_object(header)
        entries.pop("__metadata__", None)
        tensors = [_tensor(name, entry) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise _corrupt(path, str(exc)) from exc
    strange = next((t.name for t in tensors if not is_plain(t.name)), None)
    if strange is not None:
        raise WeightsError(
            f"{path}: {shown(strange)} cannot name a tensor of an adapter: use at most {LONGEST_NAME} letters, digits "
            f"and '_', in at most {MOST_PARTS} parts with '.' between them"
        )
    return sorted(tensors, key=lambda tensor: (tensor.start, tensor.size))


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8 without duplicate keys.

    Raises:
        ValueError: it is not one.
        RecursionError: it is nested too deeply.
    """
    if not data.startswith(b"{"):
        raise ValueError("no JSON object")
    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        raise ValueError(f"{shown(keys.most_common(1)[0][0])} is there twice")
    return unique


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    dtype, shape, places = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, *places]
    if len(places) != 2 or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise ValueError(f"{shown(name)} has no shape and place")
    if len(shape) > 8:
        raise ValueError(f"{shown(name)} has {len(shape)} dimensions")
    return Tensor(name, str(dtype), tuple(shape), places[0], places[1] - places[0])


def _check_places(tensors: list[Tensor], size: int, path: object) -> None:
    """Check that the tensors fill the file, one after the other."""
    end = 0
    for tensor in tensors:
        if tensor.dtype not in _NUMBERS:
            raise WeightsError(
                f"{path}: {tensor.name} is {shown(tensor.dtype).strip(chr(39))}; "
                "save it as float32, float16 or bfloat16"
            )
        width = np.dtype(_NUMBERS[tensor.dtype][0]).itemsize
        if tensor.start != end or tensor.size != math.prod(tensor.shape) * width:
            raise _corrupt(path, f"{tensor.name} is not where its header says")
        end += tensor.size
    if end != size:
        raise _corrupt(path, f"it holds {size} bytes of numbers where its header says {end}")


def _check_finite(chunk: bytes, tensor: Tensor, path: object) -> None:
    kind, exponent = _NUMBERS[tensor.dtype]
    bits = np.frombuffer(chunk, kind)
    if ((bits & bits.dtype.type(exponent)) == exponent).any():
        raise WeightsError(f"{path}: {tensor.name} holds NaN or infinity: the training diverged, repeat it")


def read_bytes(file: IO[bytes], size: int, path: object) -> bytes:
    """Read `size` bytes, or less at the end of the file.

    Raises:
        WeightsError: the system cannot.
    """
    try:
        return file.read(size)
    except OSError as exc:
        raise WeightsError(f"{path} cannot be read: {exc.strerror}") from exc


def _read_exactly(file: IO[bytes], size: int, path: object) -> bytes:
    data = read_bytes(file, size, path)
    if len(data) < size:
        raise _corrupt(path, f"{size - len(data)} bytes are missing")
    return data


def _corrupt(path: object, why: str) -> WeightsError:
    return WeightsError(f"{path} is truncated or corrupt ({why}): copy it again (with Git LFS: git lfs pull)")
