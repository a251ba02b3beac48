"""Errors and model cards in the form that OpenAI's clients read, alike from every server of ours; errors in Anthropic's too."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from ..adapters import BusyError, DatabaseError

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
    anthropic: bool = False,
) -> JSONResponse:
    """An error as a response, as OpenAI's API has it or as Anthropic's."""
    asked = {"www-authenticate": "Bearer"} if status == 401 else {}
    openai = error_body(status, message, param=param)
    content = _anthropic_body(status, message) if anthropic else openai
    return JSONResponse(content, status, headers={**asked, **(headers or {})})


def model_reply(name: str, cards: Iterable[Mapping[str, Any]]) -> JSONResponse:
    """The card of the model `name`, which is one of those that are listed, or a 404."""
    for card in cards:
        if card["id"] == name:
            return JSONResponse(card)
    message = f"the model {name[:64]!r} does not exist: see /v1/models"
    return error_reply(404, message, param="model")


def _anthropic_body(status: int, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def database_reply(error: DatabaseError) -> JSONResponse:
    """A registry that cannot be read or written now, with a time to try again where that may help."""
    headers = {"retry-after": "10"} if isinstance(error, BusyError) else {}
    return error_reply(503, str(error), headers=headers)
