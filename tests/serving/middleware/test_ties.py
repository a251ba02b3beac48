"""A tie goes to a loaded adapter through a server, and the conversation stays with it whatever is loaded later."""

from typing import Any

import pytest
from traitroute.router import RoutingDecision
from traitroute.serving.experiment import Experiment
from traitroute.serving.slots import Slots
from traitroute.serving.state import ServerState


@pytest.fixture
def slots(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """One slot, for the three adapters; the router takes any adapter that is held for as good as `code`."""
    slots = Slots(1, 0.01)
    slots.load_s = 1.0
    state.slots = slots
    route = state.snapshot.router.route  # type: ignore[union-attr]

    def with_ties(request: str, /, *, held: Any = (), worth: float = 0.0, **options: Any) -> RoutingDecision:
        decision = route(request, **options)
        if decision.adapter == "code" and held and "code" not in held and worth:
            return decision.model_copy(update={"adapter": min(held), "instead_of": "code"})
        return decision

    monkeypatch.setattr(state.snapshot.router, "route", with_ties)
    return slots


def answered_by(response: Any) -> str:
    return response.headers["x-traitroute-adapter"]


def test_a_conversation_stays_where_it_began_whatever_is_loaded_later(server: Any, slots: Slots) -> None:
    slots.asked("cook")
    assert answered_by(server.chat("code one")) == "cook"
    slots.asked("code")
    assert answered_by(server.chat("code one", "more")) == "cook"
    assert answered_by(server.chat("code two")) == "code"
    slots.asked("cook")
    assert answered_by(server.chat("code two", "more")) == "code"


def test_with_as_many_slots_as_adapters_nothing_is_tied(server: Any, slots: Slots) -> None:
    slots.count = 3
    slots.asked("cook")
    assert answered_by(server.chat("code")) == "code"


def test_the_control_group_is_drawn_as_without(server: Any, slots: Slots, state: ServerState) -> None:
    state.experiment = Experiment(holdback=0.5)
    slots.asked("cook")
    answers = [server.chat(f"code {i}") for i in range(40)]
    arms = {a.headers["x-traitroute-arm"]: answered_by(a) for a in answers}
    assert arms == {"auto": "cook", "control": "base"}
    assert {a.headers["x-traitroute-propensity"] for a in answers} == {"0.5"}
