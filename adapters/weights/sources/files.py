"""The files of one place: a folder of this machine, or a URL."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import unquote

from ...errors import SourceError, WeightsError
from .source import HUB, Source

_WEB = ("http", "https")
_GONE = (404, 410)
# Enough to open what lies in a folder; macOS has no such flag.
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW


class Files(Protocol):
    """The files of one folder, wherever it is."""

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Open a file for reading and say its size, 0 where that is unknown; or raise `FileNotFoundError`."""
        ...

    def names(self) -> list[str]:
        """Name all files there, or none where they cannot be listed."""
        ...

    def failing(self) -> Any:
        """A context in which errors of reading become `SourceError`."""
        ...

    def close(self) -> None:
        """Let the place go."""
        ...


class FolderFiles:
    """Files of a folder of this machine, of whose path no part may be a link (any more)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._found = _open_folder(folder)
        except OSError as exc:
            raise WeightsError(f"no adapter folder {folder}: give the folder that PEFT saved") from exc

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Open a plain file: no link, which may lead out of the folder, and no pipe, which may never end."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            found = os.open(name, flags, dir_fd=self._found)
        except FileNotFoundError:
            raise
        except OSError as exc:
            if (self._folder / name).is_symlink():
                raise SourceError(f"{self._folder / name} is a symbolic link: put the file itself there") from exc
            raise
        file, status = os.fdopen(found, "rb"), os.fstat(found)
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
        """Say what the system says."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SourceError(f"{self._folder} cannot be read: {exc.strerror or exc}") from exc

    def close(self) -> None:
        """Close the folder."""
        os.close(self._found)


def _open_folder(folder: Path) -> int:
    """Open an absolute path part by part: a link may have come into it since it was checked."""
    found = os.open("/", _SEARCH)
    for part in folder.parts[1:]:
        outer = found
        try:
            found = os.open(part, _SEARCH, dir_fd=outer)
        finally:
            os.close(outer)
    return found


class UrlFiles:
    """Files under a URL, read through fsspec; the Hub's too, by the file system of `huggingface_hub`.

    Of web servers, which may be anybody's, no redirect is followed, for it may lead out of the allowed places; the
    Hub's and other stores' are their own business. A web server may be silent for `silence_s` and take `longest_s`.
    """

    def __init__(self, place: Source, *, silence_s: float, longest_s: float) -> None:
        self._place = place
        self._web = place.parts[0] in _WEB
        with self.failing():
            from fsspec.core import url_to_fs

            options = _web_options(silence_s, longest_s) if self._web else {}
            # A listing kept from an earlier look would hide what was uploaded since.
            options["skip_instance_cache"] = True
            self._system, self._root = url_to_fs(str(place), **options)
            if place.parts[0] == HUB:
                _check_revision(place)

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Open a file."""
        path = f"{self._root}/{name}"
        size = self._system.info(path).get("size")
        return self._system.open(path, "rb"), size if isinstance(size, int) else 0

    def names(self) -> list[str]:
        """Name all files, where the place can list them; of a web server, fsspec would search a page of any length."""
        if self._web:
            return []
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
        except SourceError:
            raise
        except ImportError as exc:
            raise SourceError(
                f"{self._place} needs a package that is not installed ({exc}): "
                "pip install 'traitroute[sources]', and fsspec's package for that kind of storage"
            ) from exc
        # What storage of all kinds raises has no common root.
        except Exception as exc:
            reason = exc
            if isinstance(exc, FileNotFoundError):
                # fsspec says of whatever a web server answers that the file is not there.
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
        """Nothing is held."""


def _web_options(silence_s: float, longest_s: float) -> dict[str, Any]:
    """Options of fsspec's file system of web servers, with which a file is read as one stream."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=longest_s, sock_connect=silence_s, sock_read=silence_s)
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

    Anybody may open a pull request, and its commits are found by their hashes like all others.
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
