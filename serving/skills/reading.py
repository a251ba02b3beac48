"""Read what a caller gave as one of the models; whatever is not understood is refused, and the message says how to mend it."""

import reprlib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ..http.body import parse
from ..http.errors import RefusedError
from ..http.paging import Page

Asked = TypeVar("Asked", bound=BaseModel)


def read_json(body: bytes, model: type[Asked]) -> Asked:
    """Read a body of JSON as `model`.

    Raises:
        RefusedError: it is none; the message names the part at fault.
    """
    try:
        # Not by pydantic's own parser: what other endpoints accept as JSON is accepted here.
        given = parse(body)
    except ValueError as exc:
        raise RefusedError("the body is not JSON: send an object as /v1/openapi.json says") from exc
    return read_model(given, model)


def read_model(given: Any, model: type[Asked], *, described_in: str = "/v1/openapi.json") -> Asked:
    """Read parsed JSON as `model`, which callers find `described_in`.

    Raises:
        RefusedError: it is none; the message names the part at fault.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        raise _refusal(exc, described_in) from exc


def read_page(request: Request) -> Page:
    """Read which page of a list a request asks for.

    Raises:
        RefusedError: it is none, or a parameter is not known.
    """
    return read_model(dict(request.query_params), Page)


def _refusal(error: ValidationError, described_in: str) -> RefusedError:
    fault = error.errors(include_url=False, include_context=False)[0]
    part = ".".join(map(str, fault["loc"]))
    given = "" if fault["type"] == "missing" else f" was {reprlib.repr(fault['input'])}:"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        given, message = "", f"is not known: leave it out, or see {described_in} for what is"
    return RefusedError(f"{part or 'the body'}{given} {message}", param=part or None)
