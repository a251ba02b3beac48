"""Errors in the form that OpenAI's clients read."""

from starlette.responses import JSONResponse


def error_reply(
    status: int, message: str, *, kind: str = "api_error", retry_after_s: int | None = None
) -> JSONResponse:
    """A response with an error body; `retry_after_s` tells when to come again."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status_code=status, headers=headers)
