"""GET /v1/lift: what the page shows, computed once a minute at most."""

from datetime import UTC, datetime, timedelta

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from traitroute.adapters import Feedback, Registry
from traitroute.serving.api_routes import api_routes
from traitroute.serving.lift import LiftReport, routes
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

from ...simulated_outcomes import report_control_group


def report_outcomes(registry: Registry, count: int, first: int = 0) -> None:
    report_control_group(registry, "chef", "cooking", count, first=first)


@pytest.fixture
def client(registry: Registry) -> TestClient:
    state = ServerState()
    state.snapshot = RegistrySnapshot(location=registry.location)
    return TestClient(Starlette(routes=api_routes(state)))


def test_the_gain_is_answered_as_the_report_has_it(client: TestClient, registry: Registry) -> None:
    report_outcomes(registry, 60)
    answer = client.get("/v1/lift")
    assert answer.status_code == 200
    told = LiftReport.model_validate(answer.json())
    assert told.total.verdict == "better"
    assert [row.name for row in told.kinds] == ["cooking"]


def test_an_answer_is_given_again_for_a_minute(
    client: TestClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_outcomes(registry, 10)
    counted = lambda: client.get("/v1/lift").json()["outcomes"]  # noqa: E731
    assert counted() == 10
    report_outcomes(registry, 10, first=10)
    assert counted() == 10
    assert client.get("/v1/lift?source=checker").json()["outcomes"] == 0
    monkeypatch.setattr(routes, "FRESH_S", 0.0)
    assert counted() == 20


def test_a_server_reads_the_newest_outcomes_only_and_says_so(
    client: TestClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_outcomes(registry, 30)
    monkeypatch.setattr(routes, "MOST", 20)
    told = client.get("/v1/lift").json()
    assert told["outcomes"] == 20
    assert any("only the newest outcomes were read" in note for note in told["notes"])


@pytest.mark.parametrize("query", ["source=nobody", "days=3"])
def test_what_is_not_understood_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/v1/lift?{query}").status_code == 400


def test_a_registry_that_is_gone_is_told_without_its_path(client: TestClient, registry: Registry) -> None:
    registry.path.rename(registry.path.with_name("gone.db"))
    answer = client.get("/v1/lift")
    assert answer.status_code == 503
    assert str(registry.path.parent) not in answer.text


def test_without_a_registry_yet_it_is_unavailable() -> None:
    client = TestClient(Starlette(routes=api_routes(ServerState())))
    assert client.get("/v1/lift").status_code == 503


def test_outcomes_before_anything_was_drawn_are_left_out(client: TestClient, registry: Registry) -> None:
    made = int((datetime.now(UTC) - timedelta(days=2)).timestamp())
    before = DecisionToken(None, 0.0, 0.5, 1, made=made, conversation="early").sign(b"key")
    registry.put_feedback(Feedback(token=before, adapter=None, predicted_gain=0.0, reward=1.0))
    report_outcomes(registry, 10)
    told = client.get("/v1/lift").json()
    assert (told["outcomes"], told["outside"]) == (10, 1)


def test_outcomes_of_adapters_for_which_nothing_was_drawn_meanwhile_are_told(
    client: TestClient, registry: Registry
) -> None:
    report_outcomes(registry, 10)
    undrawn = DecisionToken("chef", 0.1, 0.5, 1, conversation="another tenant's")
    registry.put_feedback(Feedback(token=undrawn.sign(b"key"), adapter="chef", predicted_gain=0.1, reward=1.0))
    told = client.get("/v1/lift").json()
    assert (told["outcomes"], told["outside"]) == (10, 1)
    assert [note for note in told["notes"] if "1 outcomes are of adapters" in note] == told["notes"] != []
