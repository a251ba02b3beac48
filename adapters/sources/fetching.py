"""Copy an adapter's files from where it lies, and nothing else that lies there.

Three files are read by name: the two of PEFT's format and a README. What else a folder holds, pickles above all, is
never opened. A file's size is counted while it is copied, for what a place says of it need not be true.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from ..adapter_files import CONFIG, WEIGHTS, absence
from ..errors import SourceError, WeightsError
from .source import Source

README = "README.md"
LARGEST = 4 * 2**30
"""Bytes of weights: rank 64 on every projection of a 70-billion model in float32 takes 3.3 GB."""

_LARGEST_TEXT = 2**20
_CHUNK = 2**20


def fetch(place: Source, into: Path, *, largest: int = LARGEST) -> None:
    """Copy the adapter at `place`, which was allowed before, into the folder `into`.

    Raises:
        SourceError: the place cannot be read, or a file there is larger than allowed.
        WeightsError: a file of the adapter is absent.
    """
    there = _UrlFiles(place) if place.folder is None else _FolderFiles(place.folder)
    for name, limit in ((CONFIG, _LARGEST_TEXT), (WEIGHTS, largest)):
        try:
            _copy(there, name, into / name, limit)
        except FileNotFoundError as exc:
            raise WeightsError(absence(name, there.names(), str(place))) from exc
    try:
        _copy(there, README, into / README, _LARGEST_TEXT)
    except (FileNotFoundError, SourceError):
        # It is read for the licence alone, which may as well be stated by hand.
        (into / README).unlink(missing_ok=True)


class _Files(Protocol):
    """The files of one folder, wherever it is."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading, or raise `FileNotFoundError`."""
        ...

    def names(self) -> list[str]:
        """Name all files there, or none where they cannot be listed."""
        ...

    def failing(self) -> Any:
        """A context in which errors of reading become `SourceError`."""
        ...


def _copy(there: _Files, name: str, target: Path, limit: int) -> None:
    with there.failing():
        source = there.open(name)
    size = 0
    with source, target.open("xb") as copy:
        while True:
            with there.failing():
                chunk = source.read(_CHUNK)
            if not chunk:
                return
            size += len(chunk)
            if size > limit:
                raise SourceError(f"{name} is larger than the {limit} bytes that are taken")
            copy.write(chunk)


class _FolderFiles:
    """Files of a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise WeightsError(f"no adapter folder {folder}: give the folder that PEFT saved")
        self._folder = folder

    def open(self, name: str) -> IO[bytes]:
        """Open a plain file: no link, which may lead out of the folder, and no pipe, which may never end."""
        try:
            found = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as exc:
            if (self._folder / name).is_symlink():
                raise SourceError(
                    f"{self._folder / name} is a symbolic link: put the file itself there"
                ) from exc
            raise
        file = os.fdopen(found, "rb")
        if not stat.S_ISREG(os.fstat(found).st_mode):
            file.close()
            raise SourceError(f"{self._folder / name} is no plain file: put the file itself there")
        return file

    def names(self) -> list[str]:
        """Name all files."""
        with self.failing():
            return [path.name for path in self._folder.iterdir()]

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Say what the system says."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SourceError(f"{self._folder} cannot be read: {exc.strerror or exc}") from exc


class _UrlFiles:
    """Files under a URL, read through fsspec; the Hub's too, by the file system of `huggingface_hub`."""

    def __init__(self, place: Source) -> None:
        self._place = place
        with self.failing():
            from fsspec.core import url_to_fs

            # A listing kept from an earlier look would hide what was uploaded since.
            self._system, self._root = url_to_fs(str(place), skip_instance_cache=True)

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return self._system.open(f"{self._root}/{name}", "rb")

    def names(self) -> list[str]:
        """Name all files, where the place can list them."""
        try:
            with self.failing():
                return [path.rpartition("/")[2] for path in self._system.ls(self._root, False)]
        except (FileNotFoundError, SourceError):
            return []

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Say the kind of error alone: its text may hold a signed URL."""
        try:
            yield
        except FileNotFoundError:
            raise
        except ImportError as exc:
            raise SourceError(
                f"{self._place} needs a package that is not installed ({exc}): "
                "pip install 'traitroute[sources]', and fsspec's package for that kind of storage"
            ) from exc
        # What storage of all kinds raises has no common root.
        except Exception as exc:
            raise SourceError(
                f"{self._place} cannot be read ({type(exc).__name__}): check that it exists, that this "
                "machine reaches it, and its credentials in the environment"
            ) from exc
