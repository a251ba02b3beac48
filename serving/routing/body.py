"""Read, parse and replay a request's body, within limits.

The parser is the one that the apps behind use, so that no body means one thing here and another there.
"""

import json
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from .refusal import RefusedError

MAX_DEPTH = 100
"""How deep a body may nest that is changed here; the deepest tool schemas stay far below."""


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Read the whole body.

    Raises:
        RefusedError: it is larger than `limit` bytes.
        ClientDisconnect: the client went away.
    """
    declared = headers.get("content-length", "")
    # Longer digits than any limit has are refused unread, for int() itself has limits.
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def parse(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; anything else is empty here and left to the app's own validation.

    Raises:
        RefusedError: it nests too deep to be parsed.
    """
    try:
        request = json.loads(body)
    except ValueError:
        return {}
    except RecursionError as exc:
        raise _too_deep() from exc
    return request if isinstance(request, dict) else {}


def check_depth(request: dict[str, Any], body: bytes) -> None:
    """Refuse a request that nests deeper than `MAX_DEPTH`.

    Raises:
        RefusedError: it does.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    level: list[Any] = [request]
    for _ in range(MAX_DEPTH):
        inner = (each for box in level for each in (box.values() if type(box) is dict else box))
        level = [each for each in inner if type(each) in (dict, list)]
        if not level:
            return
    raise _too_deep()


def replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then whatever the client does next: a disconnect must still be seen."""
    pending = [body]

    async def replayed() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replayed


def _too_large(limit: int) -> RefusedError:
    return RefusedError(f"the body is larger than {limit} bytes: shorten it", status=413)


def _too_deep() -> RefusedError:
    return RefusedError(
        f"the body nests deeper than {MAX_DEPTH} lists and objects: flatten it, or send the inner part as text"
    )
