"""A server of the skills API over a registry with three measured adapters."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from traitroute.adapters import Registry
from traitroute.serving.api_routes import api_routes
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.skills import Skills
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher


class EveryAdapter:
    """A loader that has all adapters."""

    async def ensure(self, name: str) -> None:
        """Nothing is to be done."""


class Server:
    """The skills API beside an echo of chat requests, behind routing, as the three servers have it."""

    def __init__(self, registry: Registry) -> None:
        self.state = ServerState(loader=EveryAdapter())
        self.registry = registry
        echo = Route("/v1/chat/completions", _echo, methods=["POST"])
        routes = [echo, *api_routes(self.state)]
        self.app = RoutingMiddleware(Starlette(routes=routes), state=self.state)
        self.refresh()

    def refresh(self) -> None:
        """Take over what the registry has."""

        async def once() -> None:
            follower = RegistryWatcher(self.state, self._open, lambda *_: None)
            await follower.start()
            await follower.stop()

        asyncio.run(once())

    def _open(self) -> Registry:
        return Registry.open(self.registry.location, read_only=True)

    @property
    def skills(self) -> Skills:
        """The API without HTTP."""
        assert self.state.snapshot.skills is not None
        return Skills(self.state.snapshot.skills)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self.request("GET", path, **more))

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        kind = "content" if isinstance(body, bytes) else "json"
        return asyncio.run(self.request("POST", path, **{kind: body}, **more))

    def select(self, task: str, **more: Any) -> Any:
        """An accepted selection."""
        response = self.post("/v1/skills/select", {"task": task, **more})
        assert response.status_code == 200, response.text
        return response.json()

    def route(self, task: str) -> httpx.Response:
        """A chat request for `auto`."""
        messages = [{"role": "user", "content": task}]
        return self.post("/v1/chat/completions", {"model": "auto", "messages": messages})

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)


async def _echo(request: Request) -> Response:
    return JSONResponse({"body": (await request.body()).decode("latin-1")})


@pytest.fixture
def server(registry: Registry) -> Server:
    return Server(registry)
