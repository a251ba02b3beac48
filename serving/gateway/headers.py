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
# Of the client's connection to here; its body, which is written anew; and what makes another path, method or model of a request.
_OF_THIS_REQUEST = frozenset(
    (
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"expect",
        b"host",
        b"origin",
        b"x-amzn-sagemaker-adapter-identifier",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-traitroute-model",
        ADMIN_KEY.encode(),
    )
)
_CREDENTIALS = frozenset(
    (
        b"api-key",
        b"authorization",
        b"cookie",
        b"ocp-apim-subscription-key",
        b"x-access-token",
        b"x-amz-security-token",
        b"x-api-key",
        b"x-auth-token",
        b"x-goog-api-key",
    )
)
_CROSS_ORIGIN = b"access-control-"
"""What web pages may do is between them and the gateway: an upstream's `*` would open its answers to every page, and some upstreams
refuse what comes from a page that they do not know."""
_OF_THE_UPSTREAM = frozenset((b"content-location", b"location", b"refresh"))
"""They hold its address."""


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Leave out what concerns one connection only (RFC 9110, 7.6.1); names come out in lower case."""
    lower = [(name.lower(), value) for name, value in headers]
    tokens = b",".join(value for name, value in lower if name == b"connection").split(b",")
    dropped = _HOP_BY_HOP | {token.strip().lower() for token in tokens}
    return [header for header in lower if header[0] not in dropped]


def request_headers(headers: Iterable[tuple[bytes, bytes]], *, authorization: bytes | None) -> Headers:
    """A client's headers for an upstream.

    `authorization` replaces the client's credentials, in whichever header they are; empty, they are left out; None lets
    them pass. The key of the gateway's administrator is no upstream's business, nor is which web page asked.
    """
    dropped = _OF_THIS_REQUEST if authorization is None else _OF_THIS_REQUEST | _CREDENTIALS
    kept = [header for header in end_to_end(headers) if header[0] not in dropped]
    kept = [header for header in kept if not header[0].startswith(_CROSS_ORIGIN)]
    return [*kept, (b"authorization", authorization)] if authorization else kept


def response_headers(headers: Iterable[tuple[bytes, bytes]], *, cookies: bool) -> Headers:
    """An upstream's headers for the client; who answered, and which web pages may read it, is ours to say.

    `cookies` says whether the upstream would be given its cookies back.
    """
    dropped = _OF_THE_UPSTREAM if cookies else _OF_THE_UPSTREAM | {b"set-cookie"}
    kept = (header for header in end_to_end(headers) if header[0] not in dropped)
    return [header for header in kept if not header[0].startswith((b"x-traitroute-", _CROSS_ORIGIN))]
