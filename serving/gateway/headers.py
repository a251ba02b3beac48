"""Which headers go on to the other side."""

from collections.abc import Iterable

from ..admin.key import HEADER as ADMIN_KEY

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Leave out what concerns one connection only (RFC 9110, 7.6.1); names come out in lower case."""
    lower = [(name.lower(), value) for name, value in headers]
    tokens = b",".join(value for name, value in lower if name == b"connection").split(b",")
    dropped = _HOP_BY_HOP | {token.strip().lower() for token in tokens}
    return [header for header in lower if header[0] not in dropped]


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], *, authorization: bytes | None
) -> Headers:
    """A client's headers for an upstream.

    `authorization` replaces the client's own; empty, it is left out; None lets the client's pass. The
    length, the host and the expectation of a "100 Continue" belong to the new connection, and the key of the gateway's
    administrator is no upstream's business.
    """
    dropped = {b"host", b"content-length", b"expect", ADMIN_KEY.encode()}
    if authorization is not None:
        dropped.add(b"authorization")
    kept = [header for header in end_to_end(headers) if header[0] not in dropped]
    return [*kept, (b"authorization", authorization)] if authorization else kept


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An upstream's headers for the client; what says who answered is ours to say."""
    return [h for h in end_to_end(headers) if not h[0].startswith(b"x-traitroute-")]
