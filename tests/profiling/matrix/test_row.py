"""A new adapter's row joins the profile: nothing else is measured or moved, and a killed run repeats nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import AdapterState, InputError, RegistryError, SilentAdapterError
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.matrix.anchors import rounds
from traitroute.profiling.matrix.everyday import REQUESTS
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.profiling.matrix.row import measure_row
from traitroute.profiling.study import Study
from traitroute.router import Router, RoutingProfile
from traitroute.serving.engines.probe import TEXTS

Fleet = Any


def test_a_row_on_anchors_places_the_adapter_and_opens_it(fleet: Fleet) -> None:
    found = fleet.measure("four", share=0.25, tolerance=0)
    assert set(fleet.engine.asked) == {"4"}
    assert len(fleet.engine.asked) == found.row.examples.sum() == 30
    assert found.row.gains[0] == pytest.approx(0.9, abs=0.15)
    assert np.abs(found.row.gains[1:]).max() < 0.1
    assert fleet.registry.adapter("four").state is AdapterState.READY
    assert Router.from_registry(fleet.registry).version == found.version == 2


def test_no_other_row_moves_and_other_requests_are_routed_as_before(fleet: Fleet) -> None:
    before = Router.from_registry(fleet.registry)
    old = before.profile
    fleet.measure("four")
    after = Router.from_registry(fleet.registry)
    assert np.array_equal(after.profile.trait_scores[:3], old.trait_scores)
    assert np.array_equal(after.profile.demands, old.demands)
    assert after.profile.z == old.z
    for each in (e for t in fleet.tasks for e in t.test_examples):
        now = after.route(each.prompt).adapter
        assert now in ("four", before.route(each.prompt).adapter)


def test_a_killed_run_repeats_no_example(fleet: Fleet) -> None:
    fleet.engine.dies_after = 11
    with pytest.raises(KeyboardInterrupt):
        fleet.measure("four", share=0.25, tolerance=0)
    assert fleet.registry.adapter("four").state is AdapterState.PENDING
    fleet.engine.dies_after = None
    fleet.measure("four", share=0.25, tolerance=0)
    assert len(fleet.engine.asked) == 30


def test_a_round_is_asked_together(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], fleet.engine.run
    monkeypatch.setattr(fleet.engine, "run", lambda requests: (sizes.append(len(requests)), run(requests))[1])
    found = fleet.measure("four", share=0.25, tolerance=0)
    *asked, of_base, everyday = [n for n in sizes if n not in (1, len(TEXTS))]
    assert of_base == everyday == REQUESTS
    assert asked == np.diff(rounds(120, 3, 0.25), prepend=0).tolist()
    assert sum(asked) == found.row.examples.sum()


def test_a_larger_share_goes_on_from_a_smaller_one(fleet: Fleet) -> None:
    first = fleet.measure("four", share=0.1, tolerance=0)
    more = fleet.measure("four", share=0.4, tolerance=0)
    assert len(fleet.engine.asked) == more.row.examples.sum() == 48
    assert more.row.errors.mean() < first.row.errors.mean()


def test_measuring_ends_early_where_the_row_is_sure(fleet: Fleet) -> None:
    found = fleet.measure("four", share=1.0, tolerance=0.2)
    assert found.row.errors.mean() <= 0.2
    assert len(fleet.engine.asked) < 120 / 2


def test_a_full_row_is_measured_whole_and_has_no_error(fleet: Fleet) -> None:
    fleet.measure("four")
    found = fleet.measure("four", full=True)
    profiled = Profiled.open(fleet.registry)
    assert found.row.whole
    assert profiled.whole == ("one", "two", "three", "four")
    assert profiled.estimated == {}
    exact = [profiled.outcomes("four", t).strict.mean() for t in profiled.tasks]
    assert profiled.summary.scores[3] == pytest.approx(exact)


def test_an_estimated_row_is_never_taken_for_a_whole_one(fleet: Fleet) -> None:
    fleet.measure("four")
    profiled = Profiled.open(fleet.registry)
    assert profiled.whole == ("one", "two", "three")
    assert ("four", "mood") not in profiled.cells
    assert len(profiled.estimated["four"].errors) == len(fleet.tasks)
    assert profiled.summary.paired.examples[3].tolist() == [0, 0, 0]


def test_a_replacement_takes_the_place_of_the_old_row(fleet: Fleet) -> None:
    new = fleet.replace("two", "4")
    fleet.measure(new, share=0.5)
    profile = RoutingProfile.from_bytes(Profiled.open(fleet.registry).stored.data)
    assert profile.adapters == ("one", "two", "three")
    assert fleet.registry.adapter("two").weights_digest == "4" * 64
    assert profile.trait_scores[1] == pytest.approx(profile.trait_scores[0], abs=0.2)
    assert Profiled.open(fleet.registry).whole == ("one", "three")


def test_two_rows_measured_at_the_same_time_both_join(fleet: Fleet) -> None:
    fleet.add("five", "5")

    def meanwhile(done: int, of: int) -> None:
        if fleet.registry.adapter("five").state is AdapterState.PENDING:
            fleet.measure("five")

    fleet.measure("four", on_examples=meanwhile)
    assert Profiled.open(fleet.registry).summary.adapters[3:] == ("five", "four")


def test_an_adapter_that_does_nothing_is_refused_and_its_cells_removed(fleet: Fleet) -> None:
    fleet.add("idle", "9")
    before = len(fleet.registry.cell_keys())
    with pytest.raises(SilentAdapterError, match="idle answered exactly as the base model"):
        fleet.measure("idle")
    assert len(fleet.registry.cell_keys()) == before
    assert fleet.registry.adapter("idle").state is AdapterState.PENDING


def test_another_engine_measures_base_once(fleet: Fleet) -> None:
    fleet.engine.name = "another"
    fleet.measure("four")
    assert fleet.engine.asked.count(None) == 120
    fleet.add("five", "5")
    fleet.measure("five")
    assert fleet.engine.asked.count(None) == 120


def test_an_adapter_of_another_base_model_is_refused(fleet: Fleet) -> None:
    other = BaseModelFolder(name="large", path=Path("large"), digest="c" * 64)
    with pytest.raises(InputError, match="is for tiny, but the profile's adapters are for large"):
        measure_row(fleet.registry.adapter("four"), fleet.engine, fleet.registry, other)


def test_a_task_whose_data_changed_is_refused(fleet: Fleet) -> None:
    fleet.registry.put_task("mood", "0" * 64, fleet.registry.tasks()["mood"])
    with pytest.raises(RegistryError, match="task mood gives other examples"):
        fleet.measure("four")


def test_training_rows_are_read_off_the_source_task(fleet: Fleet) -> None:
    fleet.add("five", "5", source="sums")
    fleet.measure("five")
    training = RoutingProfile.from_bytes(Profiled.open(fleet.registry).stored.data).training
    assert training.prompts[3].any()
    assert not training.prompts[0].any()


def test_a_study_leaves_out_rows_that_were_estimated_or_joined_later(fleet: Fleet) -> None:
    fleet.measure(fleet.replace("two", "4"), share=0.5)
    fleet.measure("four", full=True)
    study = Study.open(fleet.registry)
    assert study.adapters == ("one", "three")
    assert study.sources == ()
    assert study.outcomes[None, "mood"].strict.shape == (40,)
