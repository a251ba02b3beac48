"""A composite is admitted, with its recipe, where it is surely better than the best adapter by itself."""

import dataclasses
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import Adapter, AdapterState, DemandWindow, InputError, Registry, Sample
from traitroute.cli import main
from traitroute.profiling import TransferMatrix, measure
from traitroute.profiling.composites.proposals import Composer, Search, Target
from traitroute.profiling.composites.trial import Composed, compose, least_lead
from traitroute.profiling.fit import fit
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.profiling.statistics.significance import score_bounds
from traitroute.router import Router, RoutingProfile
from traitroute.serving.profile_snapshot import ProfileSnapshot
from traitroute.serving.skills import Skills
from traitroute.serving.skills.card import card_markdown, metadata

from ..conftest import BASE, TASKS, SkilledEngine

pytest.importorskip("peft")
MOOD = Target(("mood",))


class MergedEngine(SkilledEngine):
    """Answers by what weights are, merged or not: those of the three adapters can do little, and others `merged`."""

    merged: Mapping[str, float] = MappingProxyType({})
    known: Mapping[str, Mapping[str, float]] = MappingProxyType({})

    def _answer(self, request: Any) -> Any:
        if request.adapter is None:
            return super()._answer(request)
        self.skills = {"1": {"mood": 0.0, **self.known.get(request.adapter.weights_digest, self.merged)}}
        weights = request.adapter.model_copy(update={"weights_digest": "1" * 64})
        return super()._answer(dataclasses.replace(request, adapter=weights))


class House:
    """A registry of three real LoRAs of a tiny model that were measured in full, and an engine that they answer on."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.engine = MergedEngine(TASKS)
        skills = {"one": {"mood": 0.5, "sums": 0.1}, "two": {"mood": 0.3, "sums": 0.6}, "three": {"same": 0.6}}
        self.engine.known = {a.weights_digest: skills[a.name] for a in registry.adapters() if a.name in skills}

    def composer(self, target: Target = MOOD, **search: Any) -> Composer:
        return Composer.of(self.registry, Profiled.open(self.registry), target, Search(**search))

    def compose(
        self, merged: dict[str, float], target: Target = MOOD, name: str | None = None, **search: Any
    ) -> Composed:
        """Compose, where every merged adapter can do what `merged` says."""
        self.engine.merged = merged
        return compose(self.composer(target, **search), self.engine, BASE, name=name)

    def stored(self) -> int:
        """How many weights there are in the store."""
        return sum(len(p.name) == 64 for p in self.registry.weights.root.iterdir())


@pytest.fixture(scope="module")
def measured(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    base, path = tiny.save(folder / "base"), folder / "house/registry.db"
    path.parent.mkdir()
    with Registry.create(path) as registry:
        adapters = []
        for seed, name in enumerate(("one", "two", "three"), start=1):
            files = registry.weights.add(tiny.save_adapter(base, folder / name, seed=seed))
            adapters.append(registry.add_adapter(files.adapter(name, "tiny", BASE.digest)))
        for task in TASKS:
            registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
        cells = measure(House(registry).engine, registry, BASE, adapters, TASKS)
        fitted = fit(TransferMatrix.from_cells(cells), TASKS, [None] * len(adapters))
        weights = {a.name: a.weights_digest for a in adapters}
        keys = tuple(cell.key for cell in cells)
        summary = fitted.summary(None, suite="tiny", base_model="tiny", cells=keys, weights=weights)
        registry.put_profile(fitted.routing.to_bytes(), summary, ready=fitted.matrix.adapters)
    return path.parent


@pytest.fixture
def run(house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `traitroute compose` prints of the house with these arguments."""

    def command(*arguments: str) -> str:
        argv = ["traitroute", "compose", "--registry", str(house.registry.location), *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit):
            main()
        return " ".join("".join(capsys.readouterr()).split())

    return command


@pytest.fixture
def house(measured: Path, tmp_path: Path) -> Iterator[House]:
    with Registry.open(shutil.copytree(measured, tmp_path / "house") / "registry.db") as registry:
        yield House(registry)


def test_a_composite_that_is_better_is_admitted_and_routed_to(house: House) -> None:
    done = house.compose({"mood": 1.0, "sums": 0.8})
    assert done.row is not None and done.found.single == "one" and done.found.low > 0
    assert done.found.examples == 20 and done.found.tried == 8
    adapter = house.registry.adapter(done.name)
    assert adapter.state is AdapterState.READY and adapter.vllm_serves
    assert house.registry.weights.verify(adapter.weights_digest).rank <= 4
    router = Router.from_registry(house.registry)
    prompts = [e.prompt for e in TASKS[0].test_examples]
    assert done.name in {router.route(prompt).adapter for prompt in prompts}
    # The other candidates left the store.
    assert house.stored() == 4


def test_its_card_holds_the_recipe_and_why_it_was_admitted(house: House) -> None:
    done = house.compose({"mood": 1.0}, name="best-mood", methods=("dare_ties",), density=0.3, seed=7)
    snapshot = ProfileSnapshot.read(house.registry, Router.from_registry(house.registry))
    assert snapshot is not None
    adapter = house.registry.adapter("best-mood")
    card = Skills(snapshot.only({adapter.name: adapter})).card("best-mood")
    assert card.merged is not None
    assert (card.merged.method, card.merged.density, card.merged.seed) == ("dare_ties", 0.3, 7)
    digests = {a.name: a.weights_digest for a in house.registry.adapters()}
    assert all(part.weights_digest == digests[part.name] for part in card.merged.parts)
    assert sum(part.weight for part in card.merged.parts) == pytest.approx(1, abs=1e-3)
    assert "by dare_ties to rank 4, density 0.3, seed 7" in card_markdown(card)
    assert f"better than one on mood by {done.found.lead:+.2f}" in card_markdown(card)
    assert "merge" in metadata(card)["tags"]


@pytest.mark.parametrize("merged", [{"mood": 0.5}, {"mood": 0.6}, {}])
def test_a_composite_that_is_not_surely_better_is_not_admitted(house: House, merged: dict[str, float]) -> None:
    version = house.registry.latest_profile()
    done = house.compose(merged)
    assert done.row is None and done.found.low <= 0
    assert house.registry.latest_profile() == version
    assert house.registry.adapter_names() == {"one", "two", "three"} and house.stored() == 3


def test_what_judges_chose_nothing(house: House) -> None:
    halves = house.composer(Target(("mood", "sums"))).halves
    for choose, judge in zip(halves.choose, halves.judge, strict=True):
        assert sorted([*choose, *judge]) == list(range(40))
    house.compose({"mood": 0.5}, candidates=4, examples=9)
    judged = 20
    assert len(house.engine.asked) == 4 * 3 + 2 * 6 + judged


def test_more_candidates_take_a_larger_lead(house: House) -> None:
    many, few = (house.compose({"mood": 0.6}, candidates=n).found for n in (8, 1))
    assert few.lead == many.lead and few.low > many.low


def test_the_least_lead_is_what_just_admits() -> None:
    right = round(least_lead(20, 8) * 20)
    for more, admitted in ((right, True), (right - 1, False)):
        low, _ = score_bounds(np.array([[1.0]] * more + [[0.0]] * (20 - more)), tried=8)
        assert (low[0] > 0) == admitted


def test_a_killed_run_repeats_no_answer(house: House) -> None:
    house.engine.dies_after = 30
    with pytest.raises(KeyboardInterrupt):
        house.compose({"mood": 1.0})
    house.engine.dies_after = None
    done = house.compose({"mood": 1.0})
    assert done.row is not None
    chosen = sum(each.examples for each in done.tried)
    assert len(house.engine.asked) == chosen + done.found.examples + done.row.row.examples.sum()
    with pytest.raises(InputError, match="is there already"):
        house.compose({"mood": 1.0}, name=done.name)


def test_a_composite_has_to_beat_those_before_it_and_is_not_merged_again(house: House) -> None:
    first = house.compose({"mood": 1.0})
    second = house.compose({"mood": 1.0})
    assert second.found.single == first.name and second.row is None
    assert first.name not in {parent for each in second.tried for parent in each.recipe.parents}


def test_the_usual_methods_skip_what_the_ranks_do_not_allow(house: House) -> None:
    composer = house.composer(candidates=99)
    recipes = composer.propose(composer.known_gains())
    assert {r.method for r in recipes} == {"svd", "linear", "ties", "dare_linear"}
    assert {len(r.parents) for r in recipes} == {2, 3}
    assert max(r.rank for r in recipes) == 4
    wider = house.composer(candidates=99, most_rank=8)
    assert {r.method for r in wider.propose(wider.known_gains()) if len(r.parents) == 2} >= {"cat"}
    with pytest.raises(InputError, match="raise --max-rank"):
        cat = house.composer(methods=("cat",))
        cat.propose(cat.known_gains())


def test_weights_follow_what_each_parent_gains(house: House) -> None:
    composer = house.composer(adapters=("one", "three"), methods=("svd",))
    (recipe,) = composer.propose({"one": np.full(20, 0.4), "three": np.full(20, -0.1)})
    assert recipe.weights == pytest.approx((0.9091, 0.0909))


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ({"adapters": ("one",)}, "two adapters or more"),
        ({"adapters": ("one", "lost")}, "no adapter named 'lost'"),
        ({"adapters": ("one", "new")}, "new is pending"),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused(house: House, search: dict[str, Any], why: str) -> None:
    old: Adapter = house.registry.adapter("three")
    house.registry.add_adapter(old.model_copy(update={"name": "new", "state": AdapterState.PENDING}))
    with pytest.raises(InputError, match=why):
        house.compose({}, **search)


def test_a_task_that_is_not_profiled_is_refused(house: House) -> None:
    with pytest.raises(InputError, match="no task 'moot'"):
        house.composer(Target(("moot",)))


def test_traffic_asks_for_the_tasks_that_its_novel_requests_are_nearest_to(house: House) -> None:
    profiled = Profiled.open(house.registry)
    routing = RoutingProfile.from_bytes(profiled.stored.data)
    rows = routing.features.transform([e.routed for e in TASKS[1].test_examples[:30]])
    window = DemandWindow(profile_version=1, requests=60, novel=30, features=DemandWindow.pack(list(rows)))
    assert Target.of_traffic(profiled, window.rows()).tasks[0] == "sums"
    with pytest.raises(InputError, match="--task or --kind"):
        Target.of_traffic(profiled, np.zeros((0, 0)))
    until = datetime.now(UTC) + timedelta(hours=1)
    sample = Sample(kind="0" * 8, expires_at=until, profile_version=1, features=DemandWindow.pack([rows[0]]), text=b"x")
    house.registry.put_samples([sample], each=9, in_all=9)
    assert Target.of_kind(profiled, house.registry, "0" * 8).tasks[0] == "sums"
    with pytest.raises(InputError, match="no samples of kind '11111111'"):
        Target.of_kind(profiled, house.registry, "1" * 8)


def test_a_dry_run_says_what_would_be_tried_and_changes_nothing(house: House, run: Callable[..., str]) -> None:
    version = house.registry.latest_profile()
    printed = run("--task", "mood", "--task", "sums", "--candidates", "3", "--dry-run")
    assert "for mood, sums (as named)" in printed
    assert re.search(r"svd of 0\.\d\d (one|two) \+ 0\.\d\d (one|two)", printed)
    assert "133 answers are measured at most, 40 of them to judge" in printed
    assert f"has to lead by some {least_lead(40, 3):.2f} on 40 examples" in printed
    assert house.registry.latest_profile() == version and house.stored() == 3 and not house.engine.asked


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--task", "mood", "--kind", "0" * 8], "leave one of them out"),
        ([], "no server has seen requests"),
        (["--task", "mood", "--method", "mean"], "no method 'mean'"),
        (["--task", "mood", "--adapter", "one"], "two adapters or more"),
    ],
)
def test_the_command_refuses_in_one_line(run: Callable[..., str], arguments: list[str], why: str) -> None:
    printed = run(*arguments)
    assert printed.startswith("error: ") and why in printed
