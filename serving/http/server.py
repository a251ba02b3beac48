"""How the gateway and the embedded server listen: uvicorn, which here waits for no client without end.

uvicorn bounds a request's head (with h11; its other parser does not) and how many connections there are. It does not
bound the time: half a request, or an answer that nobody reads, is held for good, and enough of them shut everybody else out.
Here seconds are counted while nothing but the client is waited for. So an answer may stream for hours, and a
server that was itself late blames nobody.
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
"""The most that a request's line and headers take: h11's own limit, and Node's."""
TICK_S = 1.0
"""How often uvicorn's main loop looks round."""
_BODY_BYTES = 64 * 2**10
_CHUNKED_BYTES = 2**10
"""Little, for a chunk of one byte is six bytes that take h11 some 30 microseconds."""
_SPARE_FILES = 64
"""What a process opens besides connections: the registry, libraries, standard streams."""


@dataclass(frozen=True)
class Limits:
    """What a client may take.

    A request must arrive within `request_s` seconds, and one more for every `rate` bytes of it. Whoever takes nothing of what is
    sent for `unread_s` seconds is cut off. With `connections` open, whoever has been silent longest makes room.
    """

    request_s: float = 30.0
    rate: int = 1024
    unread_s: float = 300.0
    connections: int = 4096


class Connection(H11Protocol):
    """A client's connection, with what it has made the server wait."""

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
        """Whether it waits for its next request, of which nothing has come."""
        return self.timeout_keep_alive_task is not None

    @property
    def late(self) -> bool:
        """Whether the rest of a request is what is waited for, and nothing else."""
        if self.idle or self._refused or self.transport.is_closing():
            return False
        if self.conn.their_state is h11.IDLE:
            return True
        if self.conn.their_state is not h11.SEND_BODY:
            return False
        cycle = self.cycle
        # While the app has not taken what there is, or answers, the app is what is waited for.
        busy = cycle.response_started or cycle.body or self.flow.read_paused
        return cycle.response_complete or not busy

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take the connection, and make room for it where there is none."""
        if self.limit_concurrency and len(self.connections) + 1 >= self.limit_concurrency:
            self._make_room()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read on; after a refusal only to throw away, for a client that is still sending would see no answer but a reset."""
        self.heard = self.loop.time()
        self._received += len(data)
        if self._refused:
            return
        read = self.cycle if self.conn.their_state is h11.SEND_BODY else None
        super().data_received(data)
        if read and (self.cycle is not read or self.conn.their_state is h11.IDLE):
            # The answer had not waited for that body; the next request gets no time for it.
            self._received, self._waited = 0, 0.0

    def bytes_a_turn(self) -> int:
        """How much is read before others have their turn."""
        if self.conn.their_state is h11.IDLE:
            return HEAD_BYTES
        chunked = self.headers and any(name == b"transfer-encoding" for name, _ in self.headers)
        return _CHUNKED_BYTES if chunked else _BODY_BYTES

    def on_response_complete(self) -> None:
        """Begin to count for the next request."""
        self._received, self._waited = 0, 0.0
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or a head that is too long."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self.refuse(431, f"the request's line and headers are longer than {HEAD_BYTES} bytes")
        else:
            self.refuse(400, msg)

    def shutdown(self) -> None:
        """Wait for answers under way, but for nobody who has yet to ask."""
        if self.late:
            self.refuse(503, "the server is stopping")
        if self._refused:
            self.transport.close()
        elif not self.transport.is_closing():
            super().shutdown()

    def tick(self, limits: Limits) -> None:
        """Count one tick, and end what has gone on for too long."""
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
        """Say no, where something was asked, and close the connection at the next tick."""
        if self._received and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error_body(status, message)).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            said = (h11.Response(status_code=status, headers=headers), h11.Data(data=body))
            # Of HEAD only the first may be said.
            with suppress(h11.LocalProtocolError):
                for event in (*said, h11.EndOfMessage()):
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
        """Close those that were silent longest and have no request under way; a batch, for finding them takes time."""
        silent = [each for each in self.connections if isinstance(each, Connection) and (each.idle or each.late)]
        silent.sort(key=lambda each: each.heard)
        for each in silent[: 1 + len(silent) // 16]:
            each.refuse(503, "the server has too many connections: try again later")
            each.transport.close()
            self.connections.discard(each)


class Reader(asyncio.BufferedProtocol):
    """Hands a connection what comes in pieces, one a turn of the loop; else a read may bring 256 KiB, which may take seconds to parse."""

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
        """Where the next piece goes."""
        self._buffer = bytearray(self._connection.bytes_a_turn())
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand the piece on, and keep nothing for a client that may send no more."""
        piece, self._buffer = bytes(self._buffer[:nbytes]), bytearray()
        self._connection.data_received(piece)


def make_server(app: "ASGIApp", *, host: str, port: int, limits: Limits = Limits(), **settings: Any) -> uvicorn.Server:
    """The server of `app`, with `settings` of uvicorn's."""

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
    """As many connections as there are files for; a connection may need another one upstream."""
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
