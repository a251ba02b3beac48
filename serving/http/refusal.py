"""A request that its sender can mend: refused with an error in the endpoint's own form."""

from starlette.responses import JSONResponse

from ...adapters import InputError
from .errors import error_reply


class RefusedError(InputError):
    """The request is refused with `status`; `param` names the part of the body at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def response(self) -> JSONResponse:
        """Say so in the form of the API that was asked."""
        return error_reply(self.status, str(self), param=self.param)
