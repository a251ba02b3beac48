"""Errors and model cards in the form that OpenAI's clients read, alike from every server of ours; on Anthropic's paths, in its form."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ...adapters import BusyError, DatabaseError

ANTHROPIC_PATHS = frozenset(("/v1/messages", "/v1/messages/count_tokens"))
_KINDS = {401: "authentication_error", 403: "permission_error"}
_ANTHROPIC_KINDS = _KINDS | {
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


class Error(BaseModel):
    """What went wrong: `code` is the status, `param` the part of the request at fault, where there is one."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(BaseModel):
    """An error, as OpenAI's API has it."""

    error: Error


def error_body(status: int, message: str, *, param: str | None = None) -> dict[str, Any]:
    """An error; `param` names the part of the request at fault."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def error_reply(
    status: int,
    message: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as a response, as OpenAI's API has it, or as Anthropic's where its path was asked."""
    asked = {"www-authenticate": "Bearer"} if status == 401 else {}
    return _ErrorResponse(status, message, param=param, headers={**asked, **(headers or {})})


def model_reply(name: str, cards: Iterable[Mapping[str, Any]]) -> JSONResponse:
    """The card of the model `name`, which is one of those that are listed, or a 404."""
    for card in cards:
        if card["id"] == name:
            return JSONResponse(card)
    message = f"the model {name[:64]!r} does not exist: see /v1/models"
    return error_reply(404, message, param="model")


def database_reply(error: DatabaseError) -> JSONResponse:
    """A registry that cannot be read or written now, with a time to try again where that may help."""
    headers = {"retry-after": "10"} if isinstance(error, BusyError) else {}
    return error_reply(503, str(error), headers=headers)


def asked_path(scope: Scope) -> str:
    """The path that was asked for, without the prefix that a proxy in front took off."""
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))


def is_anthropic(scope: Scope) -> bool:
    """Whether a request is for Anthropic's API."""
    return asked_path(scope).removesuffix("/") in ANTHROPIC_PATHS


class _ErrorResponse(JSONResponse):
    """An error in two forms; the request says which is sent."""

    def __init__(self, status: int, message: str, *, param: str | None, headers: Mapping[str, str]) -> None:
        super().__init__(error_body(status, message, param=param), status, headers)
        kind = _ANTHROPIC_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        body = {"type": "error", "error": {"type": kind, "message": message}}
        self._anthropic = JSONResponse(body, status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_anthropic(scope):
            await self._anthropic(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
