"""Where adapters come from: a folder, the Hub or another file system, as far as the operator allows it.

A source is recorded in the registry and shown in lists, so one that could hold a secret (a user, a password, a
signature after a question mark) is refused; credentials belong in the environment, where fsspec and the Hub look for
them.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from ..errors import SourceError

HUB = "hf"
VARIABLE = "TRAITROUTE_ALLOWED_SOURCES"
_EVERY_HUB_ID = (HUB,)
_LONGEST = 2000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.%-]+)?", re.ASCII)
_HUB_KINDS = frozenset({"buckets", "datasets", "kernels", "models", "spaces"})
_WANTED = "give a folder's absolute path, a Hub id ORG/NAME[@REVISION], or a URL such as s3://BUCKET/FOLDER"


@dataclass(frozen=True)
class Source:
    """A folder of this machine, or a URL whose file system fsspec knows; exactly one of the two is given."""

    folder: Path | None = None
    url: str | None = None

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read a folder's absolute path, a Hub id or a URL, without checking whether anything is there.

        Raises:
            SourceError: it is none of these, climbs with `..`, or holds credentials.
        """
        if len(uri) > _LONGEST or not uri.isprintable() or not uri.strip():
            raise SourceError(f"no place can be read from {uri[:80]!r}: {_WANTED}")
        if _HUB_ID.fullmatch(uri):
            uri = f"{HUB}://{uri}"
        if "://" not in uri:
            return cls(folder=_folder(uri, uri))
        scheme, _, rest = uri.partition("://")
        if scheme.lower() in ("file", "local"):
            return cls(folder=_folder(rest, uri))
        return cls(url=_checked_url(f"{scheme.lower()}://{rest.rstrip('/')}"))

    @classmethod
    def typed(cls, text: str) -> Self:
        """Read what a person typed: a folder may be relative; what is neither there nor like a path is an id or URL.

        Raises:
            SourceError: see `parse`.
        """
        path = Path(text).expanduser()
        is_path = "://" not in text and (path.is_dir() or path.is_absolute() or text.startswith("."))
        return cls.parse(str(path.resolve()) if is_path else text)

    @property
    def parts(self) -> tuple[str, ...]:
        """The URL's scheme, host or bucket, and folders, which show whether one URL is under another.

        A revision on the Hub is left out: whoever allows a repository allows all of it.
        """
        scheme, _, rest = (self.url or "").partition("://")
        parts = (scheme, *(part for part in rest.split("/") if part))
        return tuple(p.partition("@")[0] for p in parts) if scheme == HUB else parts

    def __str__(self) -> str:
        return self.url or str(self.folder)


@dataclass(frozen=True)
class AllowedSources:
    """Where adapters may come from: `folders` and `urls` (by their `Source.parts`) with all that is under them.

    `typed` allows every folder: for the command line, whose user could read the folder anyway.
    """

    folders: tuple[Path, ...] = ()
    urls: tuple[tuple[str, ...], ...] = ()
    typed: bool = False

    @classmethod
    def of(cls, entries: Iterable[str], *, typed: bool = False) -> Self:
        """Allow folders, URLs such as `s3://BUCKET/adapters` or `hf://ORG`, and with `hub` the whole Hub.

        Raises:
            SourceError: an entry is none of these.
        """
        folders, urls = [], []
        for entry in filter(None, map(str.strip, entries)):
            if entry.lower() == "hub":
                urls.append(_EVERY_HUB_ID)
            elif entry.lower().startswith(f"{HUB}://"):
                urls.append((HUB, *entry[len(HUB) + 3 :].strip("/").split("/")))
            elif (place := Source.parse(entry)).folder is not None:
                folders.append(place.folder)
            else:
                urls.append(place.parts)
        return cls(tuple(folders), tuple(urls), typed)

    @classmethod
    def from_environment(cls, more: Iterable[str] = (), *, typed: bool = False) -> Self:
        """Allow what `$TRAITROUTE_ALLOWED_SOURCES` lists, separated by commas, and `more`."""
        return cls.of([*os.environ.get(VARIABLE, "").split(","), *more], typed=typed)

    def check(self, place: Source) -> Source:
        """Return `place` as it may be read: a folder with every symbolic link followed.

        Raises:
            SourceError: nothing that is listed holds it.
        """
        if place.folder is None:
            if not any(place.parts[: len(root)] == root for root in self.urls):
                raise SourceError(self._refusal(place))
            return place
        # Followed before it is compared, so that a link inside an allowed folder leads nowhere else.
        real = Path(os.path.realpath(place.folder))
        roots = [os.path.realpath(folder) for folder in self.folders]
        if not self.typed and not any(real.is_relative_to(root) for root in roots):
            raise SourceError(self._refusal(place))
        return Source(folder=real)

    def _refusal(self, place: Source) -> str:
        if place.parts[0] == HUB:
            what, entry = "the Hub is switched off here", "hub, or hf://ORG,"
        else:
            what, entry = "no allowed place holds it", "a folder or URL above it"
        listed = [*map(str, self.folders), *("/".join((f"{u[0]}:/", *u[1:])) for u in self.urls)]
        return (
            f"adapters may not come from {place}: {what} (allowed: {', '.join(listed) or 'none'}); "
            f"the operator can list {entry} in {VARIABLE} or with --allow-root"
        )


def _folder(path: str, uri: str) -> Path:
    if not path.startswith("/"):
        raise SourceError(f"{uri!r} is no place: {_WANTED}")
    if ".." in path.split("/"):
        raise SourceError(f"{uri!r} climbs with '..': give the path without it")
    return Path(path)


def _checked_url(url: str) -> str:
    try:
        split = urlsplit(url)
    except ValueError as exc:
        raise SourceError(f"{url[:80]!r} is no URL ({exc}): {_WANTED}") from exc
    if "::" in url:
        raise SourceError(f"{split.scheme}: chained URLs ('::') are not taken: {_WANTED}")
    # The message does not repeat the URL, which may hold a secret.
    if "@" in split.netloc or split.query or split.fragment:
        raise SourceError(
            f"the {split.scheme} URL holds a user, a password, '?' or '#': give it without, for it is kept and "
            "shown; credentials belong in the environment"
        )
    path = _decoded(split.path)
    # Some servers read `..;` as `..`, and a backslash as a slash.
    if {"..", "."} & {part.partition(";")[0] for part in path.split("/")} or "\\" in path:
        raise SourceError(f"{url!r} climbs with '..': give the URL without it")
    if "//" in path or not split.netloc:
        raise SourceError(f"{url!r} has an empty part: give the URL without it")
    if split.scheme == HUB:
        _check_hub(url)
    return url


def _decoded(path: str) -> str:
    """The path as the last of several servers may read it, if each decodes it once."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path


def _check_hub(url: str) -> None:
    parts = url.partition("://")[2].split("/")
    revision = _decoded(parts[1].partition("@")[2]) if len(parts) > 1 else ""
    if revision.split("/")[0] == "refs":
        raise SourceError(
            f"{url!r} names a reference such as refs/pr/1, a pull request that anybody may open: give a branch, tag "
            "or commit of the repository's own"
        )
    if not _HUB_ID.fullmatch("/".join(parts[:2])) or any("@" in part for part in parts[2:]):
        raise SourceError(f"{url!r} is no Hub id: give hf://ORG/NAME[@REVISION]")
    if parts[0] in _HUB_KINDS:
        raise SourceError(f"{url!r} is none of the Hub's models: give hf://ORG/NAME[@REVISION]")
