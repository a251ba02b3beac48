"""Errors in OpenAI's form, or in Anthropic's on its paths, alike from every server of ours."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ...adapters import (
    BusyError,
    ConflictError,
    DatabaseError,
    InputError,
    RunError,
    SourceError,
    TooManyError,
    TraitRouteError,
    UnknownNameError,
    WeightsError,
)

ANTHROPIC_PATHS = frozenset(("/v1/messages", "/v1/messages/count_tokens"))
_TYPES = {401: "authentication_error", 403: "permission_error"}
_STATUSES = ((UnknownNameError, 404), (ConflictError, 409), (InputError, 400))
_ANTHROPIC_TYPES = _TYPES | {404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error"}


class RefusedError(InputError):
    """A request that its sender can correct: refused with `status`; `param` names the part of it at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def response(self) -> JSONResponse:
        """The error as a response."""
        return error_response(self.status, str(self), param=self.param)


class UnavailableError(RunError):
    """The server cannot answer now, whatever is sent; the same request may succeed in `retry_s` seconds, if stated."""

    def __init__(self, message: str, *, status: int = 503, retry_s: int | None = 1) -> None:
        super().__init__(message)
        self.status = status
        self.retry_s = retry_s

    def response(self) -> JSONResponse:
        """The error as a response."""
        headers = {} if self.retry_s is None else {"retry-after": str(self.retry_s)}
        return error_response(self.status, str(self), headers=headers)


class Error(BaseModel):
    """What went wrong."""

    message: str = Field(description="What was given, what was wanted, and how to correct it.")
    type: str = Field(description="The kind of error, as OpenAI's API names it.")
    param: str | None = Field(description="The part of the request at fault; null where there is none.")
    code: int = Field(description="The HTTP status.")


class ErrorResponse(BaseModel):
    """An error, in the form of OpenAI's API."""

    error: Error


def error_body(status: int, message: str, *, param: str | None = None) -> dict[str, Any]:
    """The body of an error in OpenAI's form; `param` names the part of the request at fault."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def error_response(
    status: int, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as a response, in the form of the API whose path was requested."""
    challenge = {"www-authenticate": "Bearer"} if status == 401 else {}
    return _ErrorInEitherForm(status, message, param=param, headers={**challenge, **(headers or {})})


def exception_response(error: TraitRouteError) -> JSONResponse:
    """The response to a request that ended in one of our exceptions."""
    match error:
        case RefusedError() | UnavailableError():
            return error.response()
        case DatabaseError():
            headers = {"retry-after": "10"} if isinstance(error, BusyError) else {}
            return error_response(503, str(error), headers=headers)
        case TooManyError():
            return error_response(429, str(error), headers={"retry-after": str(math.ceil(error.wait_s))})
        case _:
            param = "uri" if isinstance(error, SourceError | WeightsError) else None
            status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
            return error_response(status, str(error), param=param)


def model_response(name: str, cards: Iterable[Mapping[str, Any]]) -> JSONResponse:
    """The listed model `name`, or a 404."""
    for card in cards:
        if card["id"] == name:
            return JSONResponse(card)
    message = f"the model {name[:64]!r} does not exist: see /v1/models"
    return error_response(404, message, param="model")


def error_text(body: bytes) -> str:
    """The message in another server's error, in whichever form it has one."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")
    for key in ("error", "message", "error_message", "detail"):
        while isinstance(value, dict) and key in value:
            value = value[key]
    return value if isinstance(value, str) else json.dumps(value)


def asked_path(scope: Scope) -> str:
    """The requested path, without the prefix (`root_path`) that a proxy in front took off."""
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))


def is_anthropic(scope: Scope) -> bool:
    """Whether the requested path is one of Anthropic's API."""
    return asked_path(scope).removesuffix("/") in ANTHROPIC_PATHS


class _ErrorInEitherForm(JSONResponse):
    """An error in OpenAI's form, sent in Anthropic's where the request was for one of its paths."""

    def __init__(self, status: int, message: str, *, param: str | None, headers: Mapping[str, str]) -> None:
        super().__init__(error_body(status, message, param=param), status, headers)
        kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        body = {"type": "error", "error": {"type": kind, "message": message}}
        self._anthropic = JSONResponse(body, status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_anthropic(scope):
            await self._anthropic(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return error_response(exc.status_code, exc.detail, headers=exc.headers)


async def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RefusedError)
    return exc.response()


EXCEPTION_HANDLERS: Mapping[Any, Any] = {HTTPException: _http_error, RefusedError: _refused}
"""For Starlette apps: its own errors (404, 405) and refusals in the form of the API whose path was requested."""
