"""Copy an adapter's files from where it lies, and nothing else that lies there.

Three files are read by name: the two of PEFT's format and a README. What else a folder holds, pickles above all, is
never opened. Size, time and free space are counted while a file is copied, for what a place says of it need not be true.
"""

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

from ...errors import InputError, SourceError, WeightsError
from ..adapter_files import CONFIG, WEIGHTS, absence
from .files import Files, FolderFiles, UrlFiles
from .source import Source

README = "README.md"
LARGEST = 4 * 2**30
"""Bytes of weights: rank 64 on every projection of a 70-billion model in float32 takes 3.3 GB."""
VARIABLE = "TRAITROUTE_MAX_ADAPTER_BYTES"
PATIENCE_S = 60.0
"""How long a place may be silent, and from when on `SLOWEST` counts."""
SLOWEST = 2**18
"""Bytes a second on average; 4 GiB then take four and a half hours at most."""
RESERVE = 64 * 2**20
"""Bytes that stay free on the disk, which the registry may share."""

_LARGEST_TEXT = 2**20
_CHUNK = 2**20


def largest_weights() -> int:
    """The most bytes of weights that are taken: `$TRAITROUTE_MAX_ADAPTER_BYTES`, or 4 GiB.

    Raises:
        InputError: the variable holds no number of bytes.
    """
    given = os.environ.get(VARIABLE, "").strip() or str(LARGEST)
    if not (given.isascii() and given.isdecimal() and len(given) <= 18 and int(given)):
        raise InputError(f"{VARIABLE} is {given[:40]!r}: give a number of bytes, such as {LARGEST}")
    return int(given)


def fetch(place: Source, into: Path, *, largest: int | None = None) -> None:
    """Copy the adapter at `place`, which was allowed before, into the folder `into`.

    Raises:
        SourceError: the place cannot be read, sends too much or too slowly, or points elsewhere.
        WeightsError: a file of the adapter is absent.
    """
    largest = largest_weights() if largest is None else largest
    with closing(_files_of(place, longest_s=PATIENCE_S + largest / SLOWEST)) as there:
        pace = _Pace()
        for name, limit in ((CONFIG, _LARGEST_TEXT), (WEIGHTS, largest)):
            try:
                _copy(there, name, into / name, limit, pace)
            except FileNotFoundError as exc:
                raise WeightsError(absence(name, there.names(), str(place))) from exc
        try:
            _copy(there, README, into / README, _LARGEST_TEXT, pace)
        except (FileNotFoundError, SourceError):
            # It is read for the licence alone, which may as well be stated by hand.
            (into / README).unlink(missing_ok=True)


def _files_of(place: Source, *, longest_s: float) -> Files:
    if place.folder is not None:
        return FolderFiles(place.folder)
    return UrlFiles(place, silence_s=PATIENCE_S, longest_s=longest_s)


def _copy(there: Files, name: str, target: Path, limit: int, pace: "_Pace") -> None:
    with there.failing():
        source, size = there.open(name)
    with source:
        _check_size(name, size, limit)
        _check_room(name, size, target.parent)
        size = 0
        with target.open("xb") as copy:
            while True:
                with there.failing():
                    chunk = source.read(_CHUNK)
                if not chunk:
                    return
                size += len(chunk)
                _check_size(name, size, limit)
                _check_room(name, len(chunk), target.parent)
                pace.count(name, len(chunk))
                copy.write(chunk)


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        setting = f" ({VARIABLE} sets how many)" if name == WEIGHTS else ""
        raise SourceError(f"{name} is larger than the {limit} bytes that are taken{setting}")


def _check_room(name: str, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size + RESERVE > free:
        raise SourceError(
            f"{name}: {size} bytes are to be written, and the disk of the weight store has {free} free, of which "
            f"{RESERVE} stay free: make room there, for instance by `traitroute registry clean`"
        )


class _Pace:
    """Counts what has come since the beginning."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._size = 0

    def count(self, name: str, size: int) -> None:
        """Count `size` bytes of a file, and refuse a place from which they come too slowly."""
        self._size += size
        elapsed_s = time.monotonic() - self._since
        if self._size < SLOWEST * (elapsed_s - PATIENCE_S):
            raise SourceError(
                f"{name} comes too slowly: {self._size} bytes in {elapsed_s:.0f} s, wanted {SLOWEST} a second; "
                "copy the adapter to a folder of this machine first"
            )
