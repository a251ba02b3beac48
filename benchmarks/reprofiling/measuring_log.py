"""A proxy between worker and server that writes down what is measured, and whether it had been measured before."""

import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from traitroute.adapters import DatabaseError

Cell = tuple[str, str]
"""The model's name and the task's."""


@dataclass
class MeasuringLog:
    """Counts requests for answers, one for each example of a cell; `late` are those for a cell that was finished.

    `task_of` tells the task of a prompt's token ids, `is_finished` whether a cell is in the registry.
    """

    server: str
    task_of: Callable[[tuple[int, ...]], str | None]
    is_finished: Callable[[Cell], bool]
    examples: Counter[tuple[Cell, tuple[int, ...]]] = field(default_factory=Counter)
    late: Counter[Cell] = field(default_factory=Counter)
    unchecked: int = 0
    url: str = ""

    @property
    def asked(self) -> int:
        """Requests for answers so far."""
        return sum(self.examples.values())

    @property
    def repeated(self) -> dict[Cell, int]:
        """Requests that were made before, by cell."""
        again: Counter[Cell] = Counter()
        for (cell, _), times in list(self.examples.items()):
            again[cell] += times - 1
        return {cell: times for cell, times in again.items() if times}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hand on what comes, from a thread."""
        server = uvicorn.Server(uvicorn.Config(self._app(), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()

    def _app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with httpx.AsyncClient(base_url=self.server, timeout=300) as app.state.client:
                yield

        path = Route("/{path:path}", self._hand_on, methods=["GET", "POST"])
        return Starlette(routes=[path], lifespan=lifespan)

    async def _hand_on(self, request: Request) -> Response:
        body = await request.body()
        if request.method == "POST":
            self._note(json.loads(body))
        headers = {"content-type": "application/json"}
        client: httpx.AsyncClient = request.app.state.client
        try:
            reply = await client.request(request.method, request.url.path, content=body, headers=headers)
        except httpx.TransportError:
            return Response(status_code=503)
        return Response(reply.content, reply.status_code, media_type="application/json")

    def _note(self, body: dict) -> None:
        prompt = tuple(body["prompt"])
        task = None if "prompt_logprobs" in body else self.task_of(prompt)
        if task is None:
            return
        cell = (body["model"], task)
        self.examples[cell, prompt] += 1
        try:
            self.late[cell] += self.is_finished(cell)
        except DatabaseError:
            self.unchecked += 1
