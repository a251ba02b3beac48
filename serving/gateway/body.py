"""What a request asks for, of which every upstream must understand the same.

What was understood is what is sent: written anew from the parsed request, so that no upstream's parser finds in the
client's bytes what ours did not (a key twice, an encoding, something behind the end). An adapter is named as `model` and
nowhere else, for only there the registry is asked about it.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from ..http.body import REQUEST, dump, off_loop, parse_object, read_body
from ..http.errors import RefusedError
from ..middleware.naming import named_beside


@dataclass(frozen=True)
class Body:
    """The body of one request: as it `came`, and as it was understood; both empty where none is read."""

    came: bytes = b""
    request: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    async def read(cls, scope: Scope, receive: Receive, limit: int) -> Self:
        """Read and understand a JSON body, which routing may have parsed.

        Raises:
            RefusedError: it is larger than `limit` bytes, no JSON object, or may name an adapter elsewhere than as `model`.
            ClientDisconnect: the client has gone.
        """
        came = await read_body(receive, Headers(scope=scope), limit)
        request = scope.get(REQUEST) or await off_loop(lambda: parse_object(came), came)
        if not request:
            raise RefusedError("the body must be a JSON object that says what is asked for")
        if not isinstance(request.get("model"), str | None):
            raise RefusedError('"model" must be the name of a model', param="model")
        if (beside := await off_loop(lambda: named_beside(request), came)) is not None:
            raise RefusedError(
                f'{reprlib.repr(beside)} may name an adapter past the registry: name it as "model", and leave that out',
                param=beside[:64],
            )
        return cls(came, request)

    @property
    def model(self) -> str | None:
        """The model that the request names; to name an empty one is to name none."""
        return self.request.get("model") or None

    async def off_loop(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, which takes longer the larger the body is."""
        return await off_loop(work, self.came)

    async def content(self, fields: Mapping[str, Any] | None) -> bytes | None:
        """What to send: the request, changed by `fields`."""
        if not self.request:
            return None
        asked = {**self.request, **(fields or {})}
        return await self.off_loop(lambda: dump(asked))
