"""Copies an adapter's files from its source, and nothing else that is there.

Three files are read by name: the two of PEFT's format and a README. What else a folder holds, pickles above all, is
never opened. Size, time and free space are counted while a file is copied, since what a source states may be false.
"""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import yaml

from ..errors import InputError, SourceError, WeightsError
from .adapter_files import CONFIG, WEIGHTS, absence
from .sources import HUB, Source

README = "README.md"
LARGEST = 4 * 2**30
"""Bytes of weights: rank 64 on every projection of a 70-billion model in float32 takes 3.3 GB."""
VARIABLE = "TRAITROUTE_MAX_ADAPTER_BYTES"
PATIENCE_S = 60.0
"""How long a source may be silent, and after which time `SLOWEST` applies."""
SLOWEST = 2**18
"""Bytes a second on average; 4 GiB then take at most four and a half hours."""
RESERVE = 64 * 2**20
"""Bytes that stay free on the disk, which the registry may share."""

_LARGEST_TEXT = 2**20
_CHUNK = 2**20
_WEB = ("http", "https")
_GONE = (404, 410)
# Enough to open what is in a folder; macOS has no such flag.
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_LONGEST_LICENCE = 64
_CARD_KEYS = ("license:", "license_name:", "datasets:")
_MOST_DATASETS = 8
_LONGEST_DATASET = 100


@dataclass(frozen=True)
class ModelCard:
    """What the front matter of an adapter's README states: its licence, and the ids of its training data."""

    licence: str | None = None
    datasets: tuple[str, ...] = ()


def largest_weights() -> int:
    """The most bytes of weights that are taken: `$TRAITROUTE_MAX_ADAPTER_BYTES`, or 4 GiB.

    Raises:
        InputError: the variable holds no number of bytes.
    """
    given = os.environ.get(VARIABLE, "").strip() or str(LARGEST)
    if not (given.isascii() and given.isdecimal() and len(given) <= 18 and int(given)):
        raise InputError(f"{VARIABLE} is {given[:40]!r}: give a number of bytes, such as {LARGEST}")
    return int(given)


def fetch(place: Source, into: Path, *, largest: int | None = None) -> ModelCard:
    """Copy the adapter at `place`, which must have been allowed, into the folder `into`, and return its model card.

    Raises:
        SourceError: the place cannot be read, sends too much or too slowly, or points elsewhere.
        WeightsError: a file of the adapter is absent.
    """
    largest = largest_weights() if largest is None else largest
    source = UrlFiles(place, largest / SLOWEST) if place.folder is None else FolderFiles(place.folder)
    with closing(source) as there:
        pace = _Pace()
        for name, limit in ((CONFIG, _LARGEST_TEXT), (WEIGHTS, largest)):
            try:
                _copy(there, name, into / name, limit, pace)
            except FileNotFoundError as exc:
                raise WeightsError(absence(name, there.names(), str(place))) from exc
        try:
            _copy(there, README, into / README, _LARGEST_TEXT, pace)
        except (FileNotFoundError, SourceError):
            # It is read only for what can be stated by hand.
            (into / README).unlink(missing_ok=True)
    return read_card(into / README)


def _copy(there: "FolderFiles | UrlFiles", name: str, target: Path, limit: int, pace: "_Pace") -> None:
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
    """Counts the bytes since the beginning."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._size = 0

    def count(self, name: str, size: int) -> None:
        """Count `size` more bytes of a file, and refuse a source that is too slow."""
        self._size += size
        elapsed_s = time.monotonic() - self._since
        if self._size < SLOWEST * (elapsed_s - PATIENCE_S):
            raise SourceError(
                f"{name} comes too slowly: {self._size} bytes in {elapsed_s:.0f} s, wanted {SLOWEST} a second; "
                "copy the adapter to a folder of this machine first"
            )


class FolderFiles:
    """Files of a folder of this machine; no part of its path may be a link, even one made since it was checked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._descriptor = _open_folder(folder)
        except OSError as exc:
            raise WeightsError(f"no adapter folder {folder}: give the folder that PEFT saved") from exc

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Open a plain file and return its size: no link, which may lead elsewhere, no pipe, which may never end."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            raise
        except OSError as exc:
            if (self._folder / name).is_symlink():
                raise SourceError(f"{self._folder / name} is a symbolic link: put the file itself there") from exc
            raise
        file, status = os.fdopen(descriptor, "rb"), os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise SourceError(f"{self._folder / name} is no plain file: put the file itself there")
        return file, status.st_size

    def names(self) -> list[str]:
        """Name all files."""
        with self.failing():
            return [path.name for path in self._folder.iterdir()]

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Translate errors of the system."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SourceError(f"{self._folder} cannot be read: {exc.strerror or exc}") from exc

    def close(self) -> None:
        """Close the folder."""
        os.close(self._descriptor)


def _open_folder(folder: Path) -> int:
    """Open an absolute path part by part: a link may have come into it since it was checked."""
    inner = os.open("/", _SEARCH)
    for part in folder.parts[1:]:
        outer = inner
        try:
            inner = os.open(part, _SEARCH, dir_fd=outer)
        finally:
            os.close(outer)
    return inner


class UrlFiles:
    """Files under a URL, read through fsspec; the Hub's too, by the file system of `huggingface_hub`.

    No redirect of a web server is followed, for it may lead out of the allowed places; those of the Hub and of other
    stores are. A web server may be silent for `PATIENCE_S`, and take `longest_s` more.
    """

    def __init__(self, place: Source, longest_s: float) -> None:
        self._place = place
        self._web = place.parts[0] in _WEB
        with self.failing():
            from fsspec.core import url_to_fs

            options = _web_options(longest_s) if self._web else {}
            # A cached listing would hide what was uploaded since.
            options["skip_instance_cache"] = True
            self._system, self._root = url_to_fs(str(place), **options)
            if place.parts[0] == HUB:
                _check_revision(place)

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Open a file and return its size, 0 where that is unknown."""
        path = f"{self._root}/{name}"
        size = self._system.info(path).get("size")
        return self._system.open(path, "rb"), size if isinstance(size, int) else 0

    def names(self) -> list[str]:
        """Name all files, where the place can list them; for a web server, fsspec would search a page of any length."""
        if self._web:
            return []
        try:
            with self.failing():
                return [path.rpartition("/")[2] for path in self._system.ls(self._root, False)]
        except (FileNotFoundError, SourceError):
            return []

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Translate errors, by their type alone: their text may hold a signed URL."""
        try:
            yield
        except SourceError:
            raise
        except ImportError as exc:
            raise SourceError(
                f"{self._place} needs a package that is not installed ({exc}): "
                "pip install 'traitroute[sources]', and fsspec's package for that kind of storage"
            ) from exc
        # The errors of all kinds of storage have no common base class.
        except Exception as exc:
            reason = exc
            if isinstance(exc, FileNotFoundError):
                # fsspec reports every failure of a web server as an absent file.
                reason = exc.__cause__ or exc
                if isinstance(reason, SourceError):
                    raise SourceError(f"{self._place} {reason}") from exc
                if reason is exc or getattr(reason, "status", None) in _GONE:
                    raise
            raise SourceError(
                f"{self._place} cannot be read ({type(reason).__name__}): check that it exists, that this "
                "machine reaches it, and its credentials in the environment"
            ) from exc

    def close(self) -> None:
        """Hold nothing."""


def _web_options(longest_s: float) -> dict[str, Any]:
    """Options of fsspec's file system of web servers, with which a file is read as one stream."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=PATIENCE_S + longest_s, sock_connect=PATIENCE_S, sock_read=PATIENCE_S)
    client = {"timeout": timeout, "raise_for_status": _refuse_redirect}
    return {"block_size": 0, "allow_redirects": False, "client_kwargs": client}


async def _refuse_redirect(response: Any) -> None:
    if 300 <= response.status < 400:
        raise SourceError(
            f"is redirected (status {response.status}), and redirects are not followed: give the place where the files "
            "are, which must be allowed itself"
        )


def _check_revision(place: Source) -> None:
    """Check that a revision on the Hub is a branch, a tag or a commit of one, and not a pull request's.

    Anybody may open a pull request, and its commits can be addressed by their hashes like all others.
    """
    from huggingface_hub import HfApi

    organisation, name, *_ = str(place).removeprefix(f"{HUB}://").split("/")
    name, _, revision = name.partition("@")
    if not revision:
        return
    api, repository, revision = HfApi(), f"{organisation}/{name}", unquote(revision)
    refs = api.list_repo_refs(repository)
    own = [ref.name for ref in (*refs.branches, *refs.tags)]
    if revision in own:
        return
    for ref in own:
        if any(c.commit_id == revision for c in api.list_repo_commits(repository, revision=ref)):
            return
    raise SourceError(
        f"{place}: the repository has no branch, tag or commit {revision!r} of its own, and what a pull request "
        "proposes, which is open to anybody, is not taken"
    )


def read_card(readme: Path) -> ModelCard:
    """Read `license` and `datasets` in a README's front matter, which the Hub reads too, as far as they can be read."""
    if not readme.is_file():
        return ModelCard()
    text = readme.read_text(encoding="utf-8", errors="replace")
    opening, _, rest = text.partition("---\n")
    front, end, _ = rest.partition("\n---")
    if opening.strip() or not end:
        return ModelCard()
    try:
        stated: Any = yaml.safe_load("\n".join(_card_lines(front)))
    except (yaml.YAMLError, RecursionError, ValueError):
        return ModelCard()
    if not isinstance(stated, dict):
        return ModelCard()
    licence = stated.get("license")
    named = stated.get("license_name") if licence == "other" else licence
    datasets: Any = stated.get("datasets")
    listed: list[Any] = datasets if isinstance(datasets, list) else [datasets]
    return ModelCard(
        named if _is_short(named, _LONGEST_LICENCE) else None,
        tuple(name for name in listed[:_MOST_DATASETS] if _is_short(name, _LONGEST_DATASET)),
    )


def _card_lines(front: str) -> Iterator[str]:
    """The lines of the keys that are read, and of the list under one: a megabyte takes YAML many seconds."""
    room = 0
    for line in front.splitlines():
        if line.startswith(_CARD_KEYS):
            room = _MOST_DATASETS
            yield line[:200]
        elif room and line.lstrip().startswith("- "):
            room -= 1
            yield line[:200]
        else:
            room = 0


def _is_short(text: Any, longest: int) -> bool:
    return isinstance(text, str) and 0 < len(text) <= longest and text.isprintable()
