"""Where a registry is: a file, or a database on a PostgreSQL server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import RegistryError

_DRIVERS = ("postgresql", "postgresql+psycopg")
_WANTED = "wanted a file, or postgresql+psycopg://USER@HOST/DATABASE"
_BEGINNINGS = ("postgres:", "postgresql:", "postgresql+psycopg:")
_ESCAPES = "in a user's name or a password write '@' as %40, ':' as %3A, '/' as %2F"


@dataclass(frozen=True, repr=False)
class Location:
    """A path or a URL, exactly one of the two; printed, it never shows a password."""

    path: Path | None = None
    url: URL | None = None

    @classmethod
    def parse(cls, given: "Place") -> Self:
        """Read a path or a URL that a user gave.

        Raises:
            RegistryError: it is a URL, but of no PostgreSQL database.
        """
        if isinstance(given, Location):
            return cls(given.path, given.url)
        if not _is_address(str(given)):
            return cls(path=Path(given))
        try:
            url = make_url(str(given))
        except (ArgumentError, ValueError) as exc:
            raise RegistryError(f"the registry's URL cannot be read: {_WANTED}; {_ESCAPES}") from exc
        # Such a part belongs to a password, and must not be shown.
        if any("@" in (part or "") for part in (url.host, url.database)):
            raise RegistryError(f"the registry's URL holds an '@' too many: {_ESCAPES}")
        if url.drivername not in _DRIVERS:
            raise RegistryError(f"a registry cannot be at {url.drivername}://: {_WANTED}")
        return cls(url=url.set(drivername="postgresql+psycopg"))

    def __str__(self) -> str:
        # What follows the question mark may hold a password too.
        return str(self.path) if self.url is None else self.url.set(query={}).render_as_string()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def beside(self, ending: str) -> Path:
        """A path of the same stem: beside the file, or for a database in the current folder."""
        if self.url is not None:
            return Path(f"{self.url.database or 'registry'}{ending}")
        path = self.path or Path()
        return path.with_name(f"{path.stem}{ending}")

    def absolute(self) -> "Location":
        """The location as an absolute path; links are kept, so that a change of their target is noticed."""
        return self if self.path is None else Location(path=self.path.absolute())

    def resolve(self) -> "Location":
        """The location as an absolute path, links followed."""
        return self if self.path is None else Location(path=self.path.resolve())

    def reveal(self) -> str:
        """The location with its password, for the environment of a process that must open it."""
        return str(self) if self.url is None else self.url.render_as_string(hide_password=False)


def _is_address(given: str) -> bool:
    """Whether it is no path: also a mistyped URL or libpq's `password=…`, which must not be shown."""
    return "://" in given or "password=" in given or given.lower().startswith(_BEGINNINGS)


Place = str | Path | Location
"""What may be given for a location."""
