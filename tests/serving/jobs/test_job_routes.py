"""What the routes say where there are no jobs; with jobs they are asked in tests/profiling/jobs."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.jobs import job_operations
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

pytest.importorskip("dbos", reason="needs DBOS: pip install 'traitroute[worker]'")


def client(state: ServerState) -> TestClient:
    return TestClient(Starlette(routes=[operation.route() for operation in job_operations(state)]))


@pytest.fixture
def state(tmp_path: Path) -> ServerState:
    with Registry.create(tmp_path / "registry.db") as registry:
        return ServerState(snapshot=RegistrySnapshot(location=registry.location))


def test_before_any_worker_there_are_no_jobs_and_no_file_is_made(state: ServerState, tmp_path: Path) -> None:
    reply = client(state).get("/v1/jobs")
    assert (reply.status_code, reply.json()) == (200, {"object": "list", "data": []})
    assert not list(tmp_path.glob("*.jobs.db"))


def test_an_unknown_job_is_not_found(state: ServerState) -> None:
    reply = client(state).get("/v1/jobs/nobody.0f3a.1.2")
    assert reply.status_code == 404
    assert "no job 'nobody.0f3a.1.2'" in reply.json()["error"]["message"]


def test_jobs_that_cannot_be_read_are_an_error_of_the_server(state: ServerState, tmp_path: Path) -> None:
    (tmp_path / "registry.jobs.db").write_bytes(b"this is no database" * 100)
    assert client(state).get("/v1/jobs").status_code == 503


def test_before_the_registry_is_read_jobs_are_not_known() -> None:
    assert client(ServerState()).get("/v1/jobs").status_code == 503
