"""Versions of the profile: fitted anew where the fleet outgrew it, compared by decisions, rolled back without loss."""

from typing import Any

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import AdapterState, InputError, PairedOutcomes
from traitroute.profiling.fit import refit
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.profiling.versions import Drift, Reference, _change, moved, roll_back, usual_residual
from traitroute.router import Router

Fleet = Any


def test_one_adapter_of_a_known_kind_asks_for_no_fit(fleet: Fleet) -> None:
    fleet.measure("four", share=0.5)
    drift = Drift.of(Profiled.open(fleet.registry))
    assert drift.fitted == 3
    assert drift.residuals["four"] <= drift.band
    assert drift.reasons == ()


def test_many_new_adapters_ask_for_a_fit(fleet: Fleet) -> None:
    for name in ("four", "five", "six"):
        if name != "four":
            fleet.add(name, {"five": "5", "six": "6"}[name])
        fleet.measure(name, share=0.5)
    reasons = Drift.of(Profiled.open(fleet.registry)).reasons
    assert any("3 adapters joined since 3 were fitted" in reason for reason in reasons)


def test_a_row_that_the_traits_cannot_express_asks_for_a_fit() -> None:
    drift = Drift(fitted=10, residuals={"odd": 0.2, "usual": 0.05}, band=0.1)
    (reason,) = drift.reasons
    assert reason.startswith("odd: 20.0 points of its gains are not expressed")


def test_what_is_usual_is_small_where_adapters_are_of_a_kind() -> None:
    rng = np.random.default_rng(0)
    strengths = np.array([0.2, 0.5, 0.8, 0.9])
    alike = [(rng.random((100, 4)) < strengths).astype(float) for _ in range(6)]
    unlike = [(rng.random((100, 4)) < np.roll([0.9, 0, 0, 0], i)).astype(float) for i in range(6)]
    assert usual_residual(alike) < usual_residual(unlike)


@pytest.mark.slow
def test_a_refit_takes_in_what_joined_and_measures_nothing(fleet: Fleet) -> None:
    fleet.measure("four", share=0.5)
    asked = len(fleet.engine.asked)
    version = refit(fleet.registry)
    profiled = Profiled.open(fleet.registry)
    assert profiled.stored.version == version == 3
    assert len(fleet.engine.asked) == asked
    assert profiled.summary.adapters == ("one", "two", "three", "four")
    assert Drift.of(profiled).residuals == {}
    assert profiled.summary.paired.examples[3].tolist() == [0, 0, 0]
    mood = fleet.tasks[0].test_examples[0].prompt
    assert Router.from_registry(fleet.registry).route(mood).adapter in ("one", "four")


@pytest.mark.slow
def test_a_rollback_is_a_new_version_with_the_old_decisions(fleet: Fleet) -> None:
    before = fleet.registry.latest_profile()
    fleet.measure(fleet.add("six", "6"), share=0.5)
    joined = fleet.registry.latest_profile()
    requests = Reference.of_tasks(Profiled.open(fleet.registry))
    changed = moved(fleet.registry, before, joined, requests)
    assert {m.after for m in changed} == {"six"}
    back = roll_back(fleet.registry, 1)
    assert (back.version, back.left_out) == (3, ())
    assert moved(fleet.registry, before, fleet.registry.latest_profile(), requests) == []
    assert fleet.registry.profile_versions() == [1, 2, 3]


def test_a_rollback_leaves_out_rows_of_weights_that_were_replaced(fleet: Fleet) -> None:
    fleet.measure(fleet.replace("two", "4"), share=0.5)
    back = roll_back(fleet.registry, 1)
    assert back.left_out == ("two",)
    assert Router.from_registry(fleet.registry).profile.adapters == ("one", "three")
    assert fleet.registry.adapter("two").state is AdapterState.READY
    assert Profiled.open(fleet.registry).whole == ("one", "three")


def test_where_no_row_is_whole_nothing_can_be_fitted(fleet: Fleet) -> None:
    for name, weights in (("one", "4"), ("two", "6"), ("three", "5")):
        fleet.measure(fleet.replace(name, weights), share=0.6, tolerance=0.0)
    with pytest.raises(InputError, match="no row was measured in full"):
        refit(fleet.registry)


def test_a_kind_changes_by_the_gains_that_its_adapters_were_measured_to_have() -> None:
    summary = made_up_summary(
        ("a", "b"), ("sums", "law"), base=np.array([0.2, 0.5]), scores=np.array([[0.6, 0.5], [0.3, 0.9]])
    )
    squares = np.array([[50.0, 0.0], [20.0, 40.0]])
    paired = PairedOutcomes(differing=squares.astype(int), squares=squares, examples=np.full((2, 2), 100))
    found = _change(summary.changed(paired=paired), "sums", [("a", "b"), ("a", "a"), (None, None), ("a", None)])
    assert (found.requests, found.changed) == (4, 2)
    assert found.before == pytest.approx(3 / 4 * 0.4)
    assert found.after == pytest.approx(0.4 / 4 + 0.1 / 4)
    # Two of four requests leave a, whose gain of 0.4 has the variance 0.5 - 0.16 an example; one goes to b.
    assert found.error == pytest.approx(np.sqrt((2 / 4) ** 2 * 0.0034 + (1 / 4) ** 2 * 0.0019))
    assert found.change == pytest.approx(-0.175)
    assert found.loses


@pytest.mark.parametrize(("kind", "adapter"), [("unknown", "a"), ("sums", "unknown")])
def test_of_what_was_not_measured_nothing_is_said(kind: str, adapter: str) -> None:
    summary = made_up_summary(("a",), ("sums",), base=np.array([0.2]), scores=np.array([[0.6]]))
    found = _change(summary, kind, [("a", adapter), (None, "a")])
    assert (found.change, found.loses, found.requests) == (None, False, 2)
