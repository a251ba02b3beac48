"""Errors in the form that OpenAI's clients read, alike from every server of ours."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

_KINDS = {401: "authentication_error", 403: "permission_error"}


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
    """An error as a response."""
    asked = {"www-authenticate": "Bearer"} if status == 401 else {}
    body = error_body(status, message, param=param)
    return JSONResponse(body, status, headers={**asked, **(headers or {})})
