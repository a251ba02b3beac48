"""Which places the operator lets adapters come from: none that is not listed."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...errors import SourceError
from .source import HUB, Source

VARIABLE = "TRAITROUTE_ALLOWED_SOURCES"
_EVERY_HUB_ID = (HUB,)


@dataclass(frozen=True)
class AllowedSources:
    """`folders` and `urls` with all that lies under them, the URLs by their parts; see `Source.parts`.

    `typed` allows every folder: for the command line, where whoever asks could read the folder anyway.
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
