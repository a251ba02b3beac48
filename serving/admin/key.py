"""The administrator's key, beside the API keys that users of the server have.

It goes in a header of its own, since `Authorization` bears the API key, which a server asks for before anything else.
"""

import os

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from ..http.errors import error_response
from ..http.keys import ApiKeys

VARIABLE = "TRAITROUTE_ADMIN_KEY"
HEADER = "x-traitroute-admin-key"


class AdminKey:
    """Says which requests bear the administrator's key; without one set, none does."""

    def __init__(self, key: str) -> None:
        self._keys = ApiKeys([key]) if key else None

    @classmethod
    def from_environment(cls) -> "AdminKey":
        """The key in `$TRAITROUTE_ADMIN_KEY`."""
        return cls(os.environ.get(VARIABLE, "").strip())

    def refusal(self, scope: Scope) -> Response | None:
        """What a request without the key is told; None where it bears the key."""
        if self._keys is None:
            return error_response(
                403,
                f"adapters cannot be changed over HTTP here: the operator has set no {VARIABLE}; "
                "`traitroute adapters` changes them on the command line",
            )
        given = Headers(scope=scope).getlist(HEADER)
        if len(given) == 1 and self._keys.match(given[0]):
            return None
        return error_response(401, f"the admin key is missing or wrong: give it once, in {HEADER}")
