"""A new task is a new column: every adapter is measured on it, and nothing else is measured or moved."""

from typing import Any

import numpy as np
import pytest
from traitroute.adapters import AdapterState, InputError
from traitroute.profiling.column import MeasuredColumns, measure_columns
from traitroute.profiling.fit import refit
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.profiling.tasks.metrics.rules import Label
from traitroute.profiling.tasks.sources import BuiltInSource
from traitroute.profiling.tasks.task import Task
from traitroute.profiling.versions import Reference, moved, roll_back
from traitroute.router import Router, RoutingProfile

pytestmark = pytest.mark.slow

Fleet = Any

TOXIC = Task(
    name="toxic",
    rows=BuiltInSource(built_in="mini", dataset="toxicity"),
    labels=("not toxic", "toxic"),
    metric=Label(),
    test=40,
    train=8,
)


@pytest.fixture
def growing(fleet: Fleet) -> Fleet:
    """The fleet, whose engine knows the new task, on which `three` is good and `four` better."""
    fleet.engine.tasks = [*fleet.tasks, TOXIC]
    fleet.engine.skills = {"3": {"toxic": 0.8}, "4": {"mood": 0.9, "toxic": 1.0}}
    return fleet


def add(fleet: Fleet, *tasks: Task, **settings: Any) -> MeasuredColumns:
    return measure_columns(tasks or [TOXIC], fleet.engine, fleet.registry, fleet.base, **settings)


def test_only_the_new_task_is_measured_for_base_and_every_adapter(growing: Fleet) -> None:
    found = add(growing)
    assert sorted(growing.engine.asked, key=str) == ["1"] * 40 + ["2"] * 40 + ["3"] * 40 + [None] * 40
    assert found.examples == 160
    profiled = Profiled.open(growing.registry)
    assert [t.name for t in profiled.tasks] == ["mood", "sums", "same", "toxic"]
    gain = profiled.summary.gains[:, 3]
    assert gain == pytest.approx([0, 0, 0.8], abs=0.2)


def test_the_other_columns_stay_to_the_bit_and_the_version_has_its_lineage(growing: Fleet) -> None:
    before = growing.registry.latest_profile()
    version = add(growing).version
    after = growing.registry.latest_profile()
    assert (after.version, after.origin, after.parent) == (version, "task", before.version)
    assert after.summary.adapters == before.summary.adapters
    assert np.array_equal(after.summary.scores[:, :3], before.summary.scores)
    assert np.array_equal(after.summary.base[:3], before.summary.base)


def test_requests_of_the_task_find_the_adapter_that_is_good_at_it(growing: Fleet) -> None:
    before = Router.from_registry(growing.registry)
    add(growing)
    router = Router.from_registry(growing.registry)
    prompts = [e.prompt for e in TOXIC.test_examples]
    assert [before.route(prompt).adapter for prompt in prompts].count("three") < 20
    chosen = [router.route(prompt).adapter for prompt in prompts]
    assert chosen.count("three") >= 20
    assert set(chosen) <= {"three", None}
    old = [growing.tasks[0].test_examples[0].prompt, growing.tasks[1].test_examples[0].prompt]
    assert [router.route(prompt).adapter for prompt in old] == ["one", "two"]


def test_a_column_equals_a_fit_of_all_columns_from_scratch(growing: Fleet) -> None:
    add(growing)
    column = growing.registry.latest_profile()
    refit(growing.registry)
    fitted = growing.registry.latest_profile()
    requests = Reference.of_tasks(Profiled.open(growing.registry))
    assert len(requests.texts) == 160
    assert moved(growing.registry, column, fitted, requests) == []
    assert np.array_equal(column.summary.traits.loadings, fitted.summary.traits.loadings)


def test_a_killed_run_repeats_no_cell(growing: Fleet) -> None:
    growing.engine.dies_after = 90
    with pytest.raises(KeyboardInterrupt):
        add(growing)
    assert growing.registry.profile_versions() == [1]
    growing.engine.dies_after = None
    add(growing)
    assert len(growing.engine.asked) == 160


def test_of_an_estimated_row_a_part_of_the_column_is_measured(growing: Fleet) -> None:
    growing.measure("four", share=0.25, tolerance=0)
    growing.engine.asked.clear()
    found = add(growing, share=0.25, tolerance=0)
    assert growing.engine.asked.count("4") == found.estimates["four"].examples.sum() == 10
    profiled = Profiled.open(growing.registry)
    assert profiled.whole == ("one", "two", "three")
    assert len(profiled.estimated["four"].errors) == 4
    scores = profiled.summary.scores
    assert scores[3, 3] == pytest.approx(1.0, abs=0.25)
    assert scores[3, 0] == pytest.approx(0.9, abs=0.15)
    router = Router.from_registry(growing.registry)
    chosen = [router.route(example.prompt).adapter for example in TOXIC.test_examples]
    assert chosen.count("four") > chosen.count("three")  # by 0.2 as ten examples tell it
    assert set(chosen) <= {"four", "three", None}


def test_an_adapter_that_joins_meanwhile_is_measured_on_the_task_too(growing: Fleet) -> None:
    def meanwhile(done: int, of: int) -> None:
        if growing.registry.adapter("four").state is AdapterState.PENDING:
            growing.measure("four", share=0.25)

    add(growing, on_cell=meanwhile)
    summary = Profiled.open(growing.registry).summary
    assert summary.adapters == ("one", "two", "three", "four")
    assert summary.scores.shape == (4, 4)
    assert growing.engine.asked.count(None) == 40


def test_an_adapter_added_later_is_measured_on_the_new_task_as_on_the_others(
    growing: Fleet,
) -> None:
    add(growing)
    row = growing.measure("four", share=0.25, tolerance=0).row
    assert row.tasks == ("mood", "sums", "same", "toxic")
    assert row.gains[3] == pytest.approx(1.0, abs=0.15)


def test_an_adapter_whose_weights_are_gone_leaves_the_profile(growing: Fleet) -> None:
    growing.registry.remove_adapter("two")
    found = add(growing)
    assert found.gone == ("two",)
    stored = growing.registry.latest_profile()
    assert stored.summary.adapters == ("one", "three")
    assert RoutingProfile.from_bytes(stored.data).adapters == ("one", "three")


def test_labels_of_traits_that_the_task_does_not_change_stay(growing: Fleet) -> None:
    growing.engine.skills = {}
    growing.registry.set_trait_label(1, 1, "mood or sums")
    add(growing)
    assert growing.registry.latest_profile().summary.traits.labels == {1: "mood or sums"}


def test_a_task_that_is_profiled_already_is_refused(growing: Fleet) -> None:
    with pytest.raises(InputError, match="task mood is in profile version 1 already"):
        add(growing, growing.tasks[0])
    assert growing.engine.asked == []


def test_a_task_that_is_profiled_under_another_name_is_refused(growing: Fleet) -> None:
    with pytest.raises(InputError, match="tasks mood and feeling have the same rows"):
        add(growing, TOXIC, growing.tasks[0].model_copy(update={"name": "feeling"}))
    assert growing.engine.asked == []


def test_a_name_that_the_registry_knows_for_other_examples_is_refused(growing: Fleet) -> None:
    growing.registry.put_task("toxic", "0" * 64, {})
    with pytest.raises(InputError, match="of other examples"):
        add(growing)


def test_a_profile_that_cannot_be_fitted_is_refused_before_anything_is_measured(
    growing: Fleet,
) -> None:
    for name, weights in (("one", "4"), ("two", "6"), ("three", "5")):
        growing.measure(growing.replace(name, weights), share=0.2)
    growing.engine.asked.clear()
    with pytest.raises(InputError, match="no row was measured in full"):
        add(growing)
    assert growing.engine.asked == []


def test_a_rollback_takes_the_task_out_again(growing: Fleet) -> None:
    add(growing)
    roll_back(growing.registry, 1)
    assert len(Profiled.open(growing.registry).tasks) == 3
    add(growing)
    assert growing.engine.asked.count(None) == 40
