"""Messages of Envoy's external processing protocol, and HTTP headers as they stand in them."""

from collections.abc import Sequence

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpBody,
    HttpHeaders,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode

RawHeaders = Sequence[tuple[bytes, bytes]]

_ENVOYS = frozenset(
    {
        *(b"connection", b"content-length", b"host", b"keep-alive", b"te", b"trailer", b"transfer-encoding"),
        *(b"upgrade", b"proxy-connection", b"expect"),
    }
)
"""Headers of one connection, which Envoy writes by itself."""


def read_headers(head: HttpHeaders) -> RawHeaders:
    listed = head.headers.headers if head.headers is not None else []
    return [(h.key.lower().encode("latin-1"), h.raw_value or h.value.encode("latin-1", "replace")) for h in listed]


def change(before: RawHeaders, after: RawHeaders, *, length: int | None = None) -> HeaderMutation:
    """How the headers `after` come from those `before`; a body's new `length` where one was told."""
    old, new = _grouped(before), _grouped(after)
    put = {name: values for name, values in new.items() if values != old.get(name)}
    if length is not None and b"content-length" in dict(before):
        put[b"content-length"] = [str(length).encode("ascii")]
    return HeaderMutation(
        set_headers=[option for name, values in put.items() for option in _set(name, values)],
        remove_headers=[name.decode("latin-1") for name in old if name not in new],
    )


def _grouped(headers: RawHeaders) -> dict[bytes, list[bytes]]:
    grouped: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if (name := name.lower()) not in _ENVOYS:
            grouped.setdefault(name, []).append(value)
    return grouped


def _set(name: bytes, values: Sequence[bytes]) -> list[HeaderValueOption]:
    replace, append = (
        HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD,
    )
    key = name.decode("latin-1")
    return [
        HeaderValueOption(header=HeaderValue(key=key, raw_value=value), append_action=append if i else replace)
        for i, value in enumerate(values)
    ]


def immediate(status: int, headers: RawHeaders, body: bytes) -> ProcessingResponse:
    code = StatusCode(status) if status in _STATUSES else StatusCode.InternalServerError
    changes = change((), headers)
    answer = ImmediateResponse(status=HttpStatus(code=code), headers=changes, body=body, details="traitroute")
    return ProcessingResponse(immediate_response=answer)


_STATUSES = frozenset(code.value for code in StatusCode)


def headers_passed(*, request: bool) -> ProcessingResponse:
    response = HeadersResponse(response=CommonResponse())
    return ProcessingResponse(request_headers=response) if request else ProcessingResponse(response_headers=response)


def echo(body: bytes, *, end: bool, request: bool) -> ProcessingResponse:
    part = BodyMutation(streamed_response=StreamedBodyResponse(body=body, end_of_stream=end))
    response = BodyResponse(response=CommonResponse(body_mutation=part))
    return ProcessingResponse(request_body=response) if request else ProcessingResponse(response_body=response)


def passed(message: ProcessingRequest, mode: Mode = Mode.NONE) -> ProcessingResponse:
    """That a message changes nothing."""
    if message.request_headers is not None or message.response_headers is not None:
        return headers_passed(request=message.request_headers is not None)
    if message.request_trailers is not None:
        return ProcessingResponse(request_trailers=TrailersResponse())
    if message.response_trailers is not None:
        return ProcessingResponse(response_trailers=TrailersResponse())
    request = message.request_body is not None
    body = message.request_body or message.response_body or HttpBody()
    if mode is Mode.FULL_DUPLEX_STREAMED:
        return echo(body.body, end=body.end_of_stream, request=request)
    return (
        ProcessingResponse(request_body=BodyResponse()) if request else ProcessingResponse(response_body=BodyResponse())
    )
