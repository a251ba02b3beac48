"""Of two adapters that are about as good, the gateway asks for the one that an upstream holds."""

from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import Registry
from traitroute.serving.gateway import Load

from .conftest import Gateway, Serve, Upstream, ask, eventually, put_profile

pytestmark = pytest.mark.slow

EGGS = "how long do I boil eggs"


@pytest.fixture
def tied(registry: Path, gateway: Gateway, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gateway before a server with one slot, which loads; critic is as good a cook as cook, who comes first."""
    monkeypatch.setenv("TRAITROUTE_LOAD_COST", "100")
    with Registry.open(registry) as opened:
        put_profile(opened, critic="cook")
    upstream = serve(Upstream())
    upstream.loads = []
    client = gateway(upstream.url, load=Load.VLLM, slots=1)
    return client, upstream


def answered_by(response: Any) -> str:
    return response.headers["x-traitroute-adapter"]


def test_a_tie_goes_to_what_an_upstream_holds_and_the_reason_says_so(tied: Any) -> None:
    client, upstream = tied
    assert ask(client, "hello", model="critic").status_code == 200
    told = ask(client, f"{EGGS} a")
    assert answered_by(told) == "critic"
    assert told.headers["x-traitroute-reason"].startswith("critic: loaded, at +0.")
    # Another takes the slot; the conversation stays, a new one does not.
    assert ask(client, "hello", model="coder").status_code == 200
    assert answered_by(ask(client, f"{EGGS} a")) == "critic"
    assert ask(client, "hello", model="coder").status_code == 200
    assert answered_by(ask(client, f"{EGGS} b")) == "cook"
    assert len(upstream.loads) == 3


def test_a_server_that_went_away_holds_nothing(tied: Any) -> None:
    client, upstream = tied
    assert ask(client, "hello", model="critic").status_code == 200
    upstream.status, upstream.cards = 503, upstream.cards[:1]
    eventually(lambda: client.get("/health").status_code == 503)
    upstream.status = 200
    eventually(lambda: client.get("/health").status_code == 200)
    assert answered_by(ask(client, f"{EGGS} a")) == "cook"


def test_without_a_number_of_slots_ties_are_as_ever(
    tied: Any, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    _, upstream = tied
    client = gateway(upstream.url, load=Load.VLLM)
    assert "TRAITROUTE_LOAD_COST has no effect" in caplog.text
    assert ask(client, "hello", model="critic").status_code == 200
    assert answered_by(ask(client, f"{EGGS} a")) == "cook"
