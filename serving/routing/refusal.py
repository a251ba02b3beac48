"""A request that its sender can mend: refused with an error in the endpoint's own form."""

from starlette.responses import JSONResponse


class RefusedError(Exception):
    """The request is refused with `status`; `param` names the part of the body at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def response(self, *, anthropic: bool = False) -> JSONResponse:
        """Say so as OpenAI's API does, or as Anthropic's."""
        kind, message = "invalid_request_error", str(self)
        if anthropic:
            error = {"type": "error", "error": {"type": kind, "message": message}}
        else:
            error = {
                "error": {
                    "message": message,
                    "type": kind,
                    "param": self.param,
                    "code": self.status,
                }
            }
        return JSONResponse(error, status_code=self.status)
