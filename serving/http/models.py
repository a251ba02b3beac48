"""Read requests as pydantic models, refuse what is not understood, and page long lists."""

import reprlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from .body import parse
from .errors import RefusedError

PAGE, MOST_ROWS = 100, 1000
"""Rows of a page: by default, and at most."""

Model = TypeVar("Model", bound=BaseModel)


class Page(BaseModel):
    """Which part of a list to return. Pages go by the last row's name, so rows that come and go shift nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MOST_ROWS, description="How many rows to return at most.")] = PAGE
    after: Annotated[
        str, Field(max_length=64, description="Return the rows after this one: `next` of the previous page.")
    ] = ""

    def of_sorted(self, names: Sequence[str]) -> tuple[slice, str | None]:
        """The rows of this page among the sorted `names`, and the `after` of the next page."""
        return self._from(names, bisect_right(names, self.after) if self.after else 0)

    def of(self, names: Sequence[str]) -> tuple[slice, str | None]:
        """The rows of this page among `names` in any order, and the `after` of the next page.

        Raises:
            RefusedError: no row is called `after` (any more).
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
    """A page of a list."""

    model_config = ConfigDict(frozen=True)

    next: str | None = Field(default=None, description="Give it as `after` for the next page; null on the last page.")


def read_json(body: bytes, model: type[Model]) -> Model:
    """Parse a body of JSON as `model`.

    Raises:
        RefusedError: it is no JSON, or does not fit; the message names the part at fault.
    """
    try:
        # Not by pydantic's own parser: what other endpoints accept as JSON is accepted here.
        given = parse(body)
    except ValueError as exc:
        raise RefusedError("the body is not JSON: send an object as /v1/openapi.json says") from exc
    return read_model(given, model)


def read_page(request: Request) -> Page:
    """Read the query parameters of a list.

    Raises:
        RefusedError: a parameter is unknown, or out of range.
    """
    return read_model(dict(request.query_params), Page)


def read_model(given: Any, model: type[Model], *, described_in: str = "/v1/openapi.json") -> Model:
    """Validate parsed JSON as `model`; messages refer callers to `described_in`.

    Raises:
        RefusedError: it does not fit; the message names the part at fault.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        raise _refusal(exc, described_in) from exc


def _refusal(error: ValidationError, described_in: str) -> RefusedError:
    """The first fault, with the part of the request that holds it."""
    fault = error.errors(include_url=False, include_context=False)[0]
    part = ".".join(map(str, fault["loc"]))
    given = "" if fault["type"] == "missing" else f" was {reprlib.repr(fault['input'])}:"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        given, message = "", f"is not known: leave it out, or see {described_in} for what is"
    return RefusedError(f"{part or 'the body'}{given} {message}", param=part or None)
