"""A canary gets its share of the conversations that it would win, and which these are does not depend on the draw."""

from collections.abc import Collection
from typing import Any

import pytest
from traitroute.router import Affinity, RoutingDecision
from traitroute.serving.canaries import Canary, Entry, route_with
from traitroute.serving.experiment import Experiment

LOTS = [Experiment().draw(b"key", f"talk {i}".encode()).lot for i in range(4000)]
NEW = Canary("new", 0.2, "1" * 64)


def ranked(*order: str) -> Any:
    """A router that prefers adapters in this order, all of them sure to help."""

    def route(*, among: Collection[str] | None = None, **options: Any) -> RoutingDecision:
        names = [name for name in order if among is None or name in among]
        ranking = tuple(Affinity(adapter=name, gain=0.3, low=0.2, high=0.4) for name in names)
        chosen = {"adapter": names[0], "gain": 0.3, "interval": (0.2, 0.4)} if names else {}
        return RoutingDecision.base("because", profile_version=1).model_copy(update={"ranking": ranking, **chosen})

    return route


def drawn(canary: Canary) -> list[bool]:
    return [canary.is_given(lot) for lot in LOTS]


def test_the_share_drawn_is_the_one_asked_for_and_a_larger_one_keeps_it() -> None:
    few, many = drawn(NEW), drawn(Canary("new", 0.5, NEW.weights))
    # Five standard deviations of a binomial of 4,000 at 0.2.
    assert abs(sum(few) / 4000 - 0.2) < 0.032
    assert all(more for less, more in zip(few, many, strict=True) if less)


def test_each_canary_draws_for_itself() -> None:
    other = drawn(Canary("other", 0.2, "2" * 64))
    both = sum(a and b for a, b in zip(drawn(NEW), other, strict=True))
    assert abs(both / 4000 - 0.04) < 0.016


def test_who_is_not_given_to_it_gets_whom_the_router_would_choose_without_it() -> None:
    for lot in LOTS[:50]:
        decision, entry = route_with({"new": NEW}, lot, ranked("new", "old"), {}, ["old"])
        given = NEW.is_given(lot)
        assert entry == Entry("new", 0.2, given)
        assert decision.adapter == ("new" if given else "old")
        assert [a.adapter for a in decision.ranking] == (["new", "old"] if given else ["old"])


def test_a_request_that_it_would_not_win_is_no_entry_and_never_its_own() -> None:
    for lot in LOTS[:50]:
        decision, entry = route_with({"new": NEW}, lot, ranked("old", "new"), {}, ["old"])
        assert (decision.adapter, entry) == ("old", None)


def test_what_the_request_admits_holds() -> None:
    route = ranked("new", "old", "older")
    for lot in LOTS[:50]:
        decision, entry = route_with({"new": NEW}, lot, route, {"among": frozenset({"old"})}, ["old", "older"])
        assert (decision.adapter, entry) == ("old", None)
        decision, entry = route_with({"new": NEW}, lot, route, {"among": frozenset({"new", "older"})}, ["old", "older"])
        assert decision.adapter == ("new" if NEW.is_given(lot) else "older")


def test_the_first_of_two_is_whose_entry_it_is_whatever_the_other_drew() -> None:
    second = Canary("second", 0.5, "2" * 64)
    both = {"new": NEW, "second": second}
    for lot in LOTS[:200]:
        decision, entry = route_with(both, lot, ranked("new", "second", "old"), {}, ["old"])
        assert entry == Entry("new", 0.2, NEW.is_given(lot))
        # Whom it is compared with never is a canary itself.
        assert decision.adapter == ("new" if NEW.is_given(lot) else "old")


@pytest.mark.parametrize("order", [("new",), ()])
def test_base_answers_where_nobody_else_would(order: tuple[str, ...]) -> None:
    lot = next(lot for lot in LOTS if not NEW.is_given(lot))
    decision, entry = route_with({"new": NEW}, lot, ranked(*order), {}, [])
    assert decision.adapter is None
    assert (entry is not None) == bool(order)


def test_one_that_replaces_another_is_compared_with_it_though_that_one_is_preferred() -> None:
    new = Canary("new", 0.2, "1" * 64, replaces="old")
    for lot in LOTS[:50]:
        decision, entry = route_with({"new": new}, lot, ranked("old", "new", "older"), {}, ["old", "older"])
        assert entry == Entry("new", 0.2, new.is_given(lot))
        assert decision.adapter == ("new" if new.is_given(lot) else "old")
        decision, entry = route_with({"new": new}, lot, ranked("older", "old", "new"), {}, ["old", "older"])
        assert (decision.adapter, entry) == ("older", None)
        # Without the old one another comes first: its traffic is left as it is.
        decision, entry = route_with({"new": new}, lot, ranked("old", "older", "new"), {}, ["old", "older"])
        assert (decision.adapter, entry) == ("old", None)


def test_what_is_loaded_decides_neither_whose_entry_it_is_nor_who_gets_a_given_one() -> None:
    seen: list[dict[str, Any]] = []

    def route(**options: Any) -> RoutingDecision:
        seen.append(options)
        return ranked("new", "old")(**options)

    for lot in LOTS[:20]:
        seen.clear()
        options = {"held": frozenset({"old"}), "worth": 0.2, "least_gain": 0.1, "explain": True}
        route_with({"new": NEW}, lot, route, options, ["old"])
        assert ["held" in each for each in seen] == [False, not NEW.is_given(lot)]
        assert all(each["least_gain"] == 0.1 for each in seen)
        assert [each["explain"] for each in seen] == [False, True]
