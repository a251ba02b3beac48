"""A long list told a page at a time, by the name of the last row told: rows that come and go meanwhile shift nothing."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .errors import RefusedError

PAGE, MOST_ROWS = 100, 1000
"""Rows of a page where nothing is said, and at most."""


class Page(BaseModel):
    """Which part of a list is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MOST_ROWS, description="How many rows.")] = PAGE
    after: Annotated[str, Field(description="Go on after this row: `next` of the page before.", max_length=64)] = ""

    def of_sorted(self, names: Sequence[str]) -> tuple[slice, str | None]:
        """The rows that are asked for, of `names` in order, and the `after` of the next page."""
        return self._from(names, bisect_right(names, self.after) if self.after else 0)

    def of(self, names: Sequence[str]) -> tuple[slice, str | None]:
        """The rows that are asked for, of `names` in whichever order, and the `after` of the next page.

        Raises:
            RefusedError: the row to go on after is not there, or no longer.
        """
        if not self.after:
            return self._from(names, 0)
        try:
            return self._from(names, names.index(self.after) + 1)
        except ValueError as exc:
            raise RefusedError(
                f"there is no row {self.after!r} (any more): begin again without it", param="after"
            ) from exc

    def _from(self, names: Sequence[str], first: int) -> tuple[slice, str | None]:
        end = first + self.limit
        return slice(first, end), names[end - 1] if end < len(names) else None


FIRST = Page()


class PageOf(BaseModel):
    """A page of a list; `next` is given as `after` to get the one that follows, and null with the last."""

    model_config = ConfigDict(frozen=True)

    next: str | None = None
