"""Servers of chef, of the tag kitchen, pilot and idle, with an operator's key and three tenants."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.api_routes import api_routes, is_for_tenants, open_paths
from traitroute.serving.http.keys import ApiKeys, KeyCheck
from traitroute.serving.http.tenants import TenantsFile, key_hash
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

from .. import conftest

OPERATOR, COOK, FLYER, GUEST = "operators-key", "cooks-key", "flyers-key", "guests-key"
TENANTS = f"""
[tenants.cooks]
keys = ["{key_hash(COOK)}"]
tags = ["kitchen"]

[tenants.flyers]
keys = ["{key_hash(FLYER)}"]
adapters = ["pilot"]

[tenants.guests]
keys = ["{key_hash(GUEST)}"]
adapters = []
"""
MESSAGES = [{"role": "user", "content": "rocket fuel thrust orbit mars moon"}]


class EveryAdapter:
    """A loader that has all adapters."""

    async def ensure(self, name: str) -> None:
        """Nothing is to be done."""


async def _echo(request: Request) -> Response:
    return JSONResponse({"asked": (await request.body()).decode()})


def stand_app(registry: Registry) -> Starlette:
    """What the plugin adds to vLLM's app, before an app that answers whatever it is asked."""
    state = ServerState(loader=EveryAdapter(), invocations_header="x-sagemaker-adapter")
    state.snapshot = RegistrySnapshot.read(registry, base_names=state.base_names)
    app = Starlette(
        routes=[*api_routes(state), Route("/{path:path}", _echo, methods=["POST"])],
        middleware=[
            Middleware(
                KeyCheck,
                keys=ApiKeys([OPERATOR], TenantsFile.from_environment()),
                message="a key is wanted",
                open_paths=open_paths(),
                is_for_tenants=is_for_tenants,
            ),
            Middleware(RoutingMiddleware, state=state),
        ],
    )
    app.state.ours = state
    return app


def write_tenants(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    path = folder / "tenants.toml"
    path.write_text(TENANTS)
    patch.setenv("TRAITROUTE_TENANTS", str(path))
    patch.setenv("TRAITROUTE_ADMIN_KEY", "admins-key")
    return path


@pytest.fixture
def tenants_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_tenants(tmp_path, monkeypatch)


@pytest.fixture(scope="module", params=["stand", "gateway", "embedded"])
def server(request: Any, filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of chef, of the tag kitchen, pilot and idle, with an operator's key and three tenants."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        write_tenants(tmp_path_factory.mktemp("tenants"), patch)
        opened = stack.enter_context(Registry.open(filled, read_only=True))
        if request.param == "stand":
            app = stand_app(opened)
        else:
            app = getattr(conftest, f"_{request.param}")(opened, OPERATOR, ())
        yield stack.enter_context(TestClient(app, raise_server_exceptions=False))


@pytest.fixture
def stand(tenants_file: Path, filled: Path) -> Iterator[TestClient]:
    """A server whose app behind shows what it was asked."""
    with Registry.open(filled, read_only=True) as opened, TestClient(stand_app(opened)) as client:
        yield client


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}


def routed(server: TestClient, key: str, text: str, **more: Any) -> Any:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    return server.post("/v1/chat/completions", json=body, headers=bearer(key))
