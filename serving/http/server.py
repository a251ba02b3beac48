"""The HTTP server of the gateway and the embedded server: uvicorn, with time limits for slow clients.

uvicorn limits the size of a request's head (with h11; not with its other parser) and the number of connections, but not
the time: half a request, or a response that nobody reads, would be held forever, and enough of them would shut
everybody else out. Here seconds count while nothing but the client is waited for. So a response may stream for hours,
and delays of the server itself count against nobody.
"""

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...adapters import InputError
from . import KEEP_ALIVE_S
from .errors import error_body

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD_BYTES = 16 * 2**10
"""The largest request line and headers: the default of h11, and of Node."""
TICK_S = 1.0
"""The period of uvicorn's main loop."""
_BODY_BYTES = 64 * 2**10
_CHUNKED_BYTES = 2**10
"""Few, since a chunk of one byte takes six bytes, and h11 some 30 microseconds."""
_SPARE_FILES = 64
"""Files that a process opens besides connections: the registry, libraries, standard streams."""


@dataclass(frozen=True)
class Limits:
    """The limits of a client.

    A request must arrive within `request_s` seconds, and one more for every `rate` bytes of it. A client that reads
    nothing for `unread_s` seconds is disconnected. With `connections` open, those that were silent longest are closed.
    """

    request_s: float = 30.0
    rate: int = 1024
    unread_s: float = 300.0
    connections: int = 4096


class Connection(H11Protocol):
    """A client's connection, and how long the server has waited for it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.heard = self.loop.time()
        self._received = 0
        self._waited = 0.0
        self._unsent = 0
        self._unread = 0.0
        self._refused = False

    @property
    def idle(self) -> bool:
        """Whether it is between requests."""
        return self.timeout_keep_alive_task is not None

    @property
    def late(self) -> bool:
        """Whether only the rest of a request is waited for."""
        if self.idle or self._refused or self.transport.is_closing():
            return False
        if self.conn.their_state is h11.IDLE:
            return True
        if self.conn.their_state is not h11.SEND_BODY:
            return False
        cycle = self.cycle
        # While the app has not read what arrived, or is responding, the app is waited for.
        busy = cycle.response_started or cycle.body or self.flow.read_paused
        return cycle.response_complete or not busy

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Accept the connection; close silent ones if there are too many."""
        if self.limit_concurrency and len(self.connections) + 1 >= self.limit_concurrency:
            self._make_room()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read; after a refusal only to discard: a client that is still sending would see a reset, not the response."""
        self.heard = self.loop.time()
        self._received += len(data)
        if self._refused:
            return
        read = self.cycle if self.conn.their_state is h11.SEND_BODY else None
        super().data_received(data)
        if read and (self.cycle is not read or self.conn.their_state is h11.IDLE):
            # The response was complete before that body; the next request gets no time for it.
            self._received, self._waited = 0, 0.0

    def bytes_a_turn(self) -> int:
        """How many bytes to read before other connections have their turn."""
        if self.conn.their_state is h11.IDLE:
            return HEAD_BYTES
        chunked = self.headers and any(name == b"transfer-encoding" for name, _ in self.headers)
        return _CHUNKED_BYTES if chunked else _BODY_BYTES

    def on_response_complete(self) -> None:
        """Start counting for the next request."""
        self._received, self._waited = 0, 0.0
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP, or whose head is too long."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self.refuse(431, f"the request's line and headers are longer than {HEAD_BYTES} bytes")
        else:
            self.refuse(400, msg)

    def shutdown(self) -> None:
        """Let running responses finish, and close connections with an incomplete request."""
        if self.late:
            self.refuse(503, "the server is stopping")
        if self._refused:
            self.transport.close()
        elif not self.transport.is_closing():
            super().shutdown()

    def tick(self, limits: Limits) -> None:
        """Count one tick, and close the connection if a time limit is exceeded."""
        unsent = self.transport.get_write_buffer_size()
        self._unread = self._unread + TICK_S if unsent and unsent == self._unsent else 0.0
        self._unsent = unsent
        if self._unread > limits.unread_s:
            self.transport.abort()
        elif self._refused:
            self.transport.close()
        elif self.late:
            self._waited += TICK_S
            if self._waited > limits.request_s + self._received / limits.rate:
                self.refuse(408, "the request came too slowly: send it at once")

    def refuse(self, status: int, message: str) -> None:
        """Send an error, if a request has begun, and close the connection at the next tick."""
        if self._received and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error_body(status, message)).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            parts = (h11.Response(status_code=status, headers=headers), h11.Data(data=body))
            # A response to HEAD has no body.
            with suppress(h11.LocalProtocolError):
                for event in (*parts, h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._received and self.transport.can_write_eof():
            self._refused = True
            self.transport.write_eof()
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """Close several of the connections that were silent longest and have no request under way."""
        silent = [each for each in self.connections if isinstance(each, Connection) and (each.idle or each.late)]
        silent.sort(key=lambda each: each.heard)
        for each in silent[: 1 + len(silent) // 16]:
            each.refuse(503, "the server has too many connections: try again later")
            each.transport.close()
            self.connections.discard(each)


class Reader(asyncio.BufferedProtocol):
    """Passes data to a connection in chunks, one a turn of the loop; 256 KiB at once may take seconds to parse."""

    def __init__(self, **given: Any) -> None:
        self._connection = Connection(**given)
        self._buffer = bytearray()

    def connection_made(self, transport: Any) -> None:
        """Pass on."""
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on."""
        self._connection.connection_lost(exc)

    def eof_received(self) -> None:
        """Pass on."""
        self._connection.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._connection.resume_writing()

    def get_buffer(self, sizehint: int) -> bytearray:
        """The buffer of the next chunk."""
        self._buffer = bytearray(self._connection.bytes_a_turn())
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass the chunk on, and keep no buffer for a client that may send no more."""
        chunk, self._buffer = bytes(self._buffer[:nbytes]), bytearray()
        self._connection.data_received(chunk)


def make_server(app: "ASGIApp", *, host: str, port: int, limits: Limits = Limits(), **settings: Any) -> uvicorn.Server:
    """A server of `app`; `settings` are uvicorn's."""

    async def tick() -> None:
        for connection in list(server.server_state.connections):
            if isinstance(connection, Connection):
                connection.tick(limits)

    reader: Any = Reader
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=reader,
        ws="none",
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=_allowed(limits.connections),
        timeout_keep_alive=KEEP_ALIVE_S,
        callback_notify=tick,
        timeout_notify=0,
        **settings,
    )
    server = uvicorn.Server(config)
    return server


def serve_app(app: "ASGIApp", *, host: str, port: int, limits: Limits = Limits(), **settings: Any) -> None:
    """Serve until the process is told to stop; `settings` are uvicorn's.

    Raises:
        InputError: the address cannot be listened on.
    """
    server = make_server(app, host=host, port=port, limits=limits, **settings)
    server.run()
    if not server.started:
        raise InputError(f"no server could be started on {host}:{port}: is the port in use?")


def _allowed(connections: int) -> int:
    """As many of `connections` as file descriptors allow; each may need another one upstream."""
    try:
        import resource
    except ImportError:
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return min(connections, max((files - _SPARE_FILES) // 2, 8))
