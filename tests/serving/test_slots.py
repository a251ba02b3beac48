"""Ties go to what is loaded: what counts as held, what loading is worth, and that no conversation follows it."""

import pytest
from traitroute.adapters import InputError
from traitroute.serving.slots import Slots


def slots_of(count: int, *asked: str, load_s: float = 2.0) -> Slots:
    slots = Slots(count, 0.01)
    slots.load_s = load_s
    for adapter in asked:
        slots.asked(adapter)
    return slots


def test_the_last_ones_asked_for_are_held_as_many_as_there_are_slots() -> None:
    held = slots_of(2, "a", "b", "a", "c").held(b"x")
    assert held is not None
    assert held.names == {"a", "c"}
    assert held.worth == pytest.approx(0.02)


def test_nothing_is_held_before_it_is_known_how_long_a_load_takes() -> None:
    slots = Slots(2, 0.01)
    slots.asked("a")
    assert slots.held(b"x") is None
    with slots.loading():
        pass
    assert slots.held(b"x") is not None
    with pytest.raises(ZeroDivisionError), slots.loading():
        raise ZeroDivisionError
    assert slots.load_s is not None and slots.load_s < 0.1


def test_a_conversation_prefers_where_it_went_before() -> None:
    slots = slots_of(2, "a", "b")
    slots.keep(b"x", "a")
    slots.asked("c")
    held = slots.held(b"x")
    assert held is not None and (held.names, held.worth) == ({"a"}, 1.0)


@pytest.mark.parametrize("given", ["yes", "-1", "101", "nan"])
def test_a_wrong_cost_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TRAITROUTE_LOAD_COST", given)
    with pytest.raises(InputError, match=r"from 0 \(off\) to 100, as in 2"):
        Slots.from_environment(4)


def test_it_is_off_by_default_and_without_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAITROUTE_LOAD_COST", raising=False)
    assert Slots.from_environment(4) is None
    monkeypatch.setenv("TRAITROUTE_LOAD_COST", "2")
    assert Slots.from_environment(None) is None
    slots = Slots.from_environment(4)
    assert slots is not None and (slots.count, slots.cost) == (4, 0.02)
