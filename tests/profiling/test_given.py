"""Profiling adapters that are there already: nothing is trained, and any number from one is enough."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import (
    AdapterState,
    AllowedSources,
    ConflictError,
    InputError,
    Registry,
    SilentAdapterError,
    SourceError,
    SuiteError,
    TrainingNote,
    UnknownNameError,
    WeightsError,
)
from traitroute.profiling import GivenAdapter, Suite, Task
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.fit import refit
from traitroute.profiling.given import DEEPEST, bring, find_adapters, named_adapter, stated_base
from traitroute.profiling.matrix.row import measure_row
from traitroute.profiling.profile import Prepared, Profile, profile_prepared
from traitroute.profiling.report.report import FAMILIES, write_report
from traitroute.profiling.study import Study
from traitroute.router import Router
from traitroute.router.training_profiles import KINDS
from traitroute.serving.profile_snapshot import ProfileSnapshot
from traitroute.serving.skills import Skills
from traitroute.serving.skills.card import card_markdown, metadata
from traitroute.serving.skills.models import PlanRequest, SelectRequest

from .conftest import BASE, SKILLS, TASKS, SkilledEngine, adapter

pytestmark = pytest.mark.slow

MakeAdapter = Callable[..., Path]
TARGETS = tuple(Task.model_validate({**dict(task), "source": False}) for task in TASKS)
ANY = AllowedSources(typed=True)
NAMES = {"one": "1", "two": "2", "three": "3", "idle": "0"}
"""Adapters of conftest's skills; the weights 0 change nothing."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry that holds adapters and no profile."""
    with Registry.create(tmp_path / "registry.db") as registry:
        for name, weights in NAMES.items():
            registry.add_adapter(adapter(name, weights))
        yield registry


def run(registry: Registry, *given: str | GivenAdapter, tasks: Sequence[Task] = TARGETS) -> tuple[Profile, Any]:
    """Profile adapters, by name or as given, on an engine that is handed in."""
    adapters = [each if isinstance(each, GivenAdapter) else GivenAdapter(name=each) for each in given]
    suite = Suite(name="mine", base_model="tiny", tasks=tuple(tasks), adapters=tuple(adapters))
    engine = SkilledEngine(tasks)
    return profile_prepared(Prepared(suite, BASE, (), 0.0), registry, Path("unused"), engine=engine), engine


def router(registry: Registry) -> Router:
    return Router.from_registry(registry)


def prompts(name: str) -> list[str]:
    return [e.prompt for task in TARGETS if task.name == name for e in task.test_examples]


def share(registry: Registry, task: str, wanted: str | None) -> float:
    route = router(registry).route
    return float(np.mean([route(prompt).adapter == wanted for prompt in prompts(task)]))


def test_one_adapter_is_routed_to_where_it_gains_and_base_answers_the_rest(registry: Registry) -> None:
    result, _ = run(registry, "one")
    assert result.matrix.adapters == ("one",)
    assert share(registry, "mood", "one") > 0.9
    assert share(registry, "sums", None) > 0.9
    assert registry.adapter("one").state == AdapterState.READY
    assert registry.adapter("two").state == AdapterState.PENDING


def test_one_adapter_has_no_trait_and_its_gains_are_the_mean(registry: Registry) -> None:
    result, _ = run(registry, "one")
    stored = registry.latest_profile()
    assert stored is not None
    assert stored.summary.traits.claimed == 0
    assert np.allclose(stored.summary.traits.gain_means, result.matrix.gains[0])


@pytest.mark.parametrize("names", [("one",), ("one", "two"), ("one", "two", "three")])
@pytest.mark.parametrize("tasks", [2, 3])
def test_any_number_of_adapters_on_two_tasks_or_more_gives_a_profile(
    registry: Registry, names: tuple[str, ...], tasks: int
) -> None:
    run(registry, *names, tasks=TARGETS[:tasks])
    assert share(registry, "mood", "one") > 0.9


def test_an_explanation_has_no_part_of_training_data_that_is_not_known(registry: Registry) -> None:
    run(registry, "one", "two")
    decision = router(registry).route(prompts("mood")[0], explain=True)
    assert decision.adapter == "one"
    assert not set(KINDS) & set(decision.contributions)
    assert sum(decision.contributions.values()) == pytest.approx(decision.ranking[0].gain)


def test_rows_beside_an_adapter_are_evidence_that_a_refit_keeps(registry: Registry, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": p, "target": "positive"}) + "\n" for p in prompts("mood")))
    run(registry, GivenAdapter(name="one", rows=rows), "two")
    assert set(KINDS) <= set(router(registry).route(prompts("mood")[0]).contributions)
    refit(registry)
    assert set(KINDS) <= set(router(registry).route(prompts("mood")[0]).contributions)
    rows.unlink()
    refit(registry)
    assert not set(KINDS) & set(router(registry).route(prompts("mood")[0]).contributions)


def test_rows_that_cannot_be_read_stop_the_run_before_anything_is_measured(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SuiteError, match=r"empty\.jsonl holds no rows of what an adapter was trained on"):
        run(registry, GivenAdapter(name="one", rows=tmp_path / "empty.jsonl"))
    assert registry.cells() == []


def test_an_adapter_that_changes_nothing_is_set_aside_with_its_reason_and_the_others_go_on(registry: Registry) -> None:
    result, engine = run(registry, "one", "idle")
    assert result.matrix.adapters == ("one",)
    assert "answered exactly as the base model" in result.set_aside["idle"]
    idle = registry.adapter("idle")
    assert (idle.state, idle.note) == (AdapterState.DISABLED, "measured: it changes nothing")
    stored = registry.latest_profile()
    assert stored is not None
    assert stored.summary.warnings[-1] == f"idle was set aside: {result.set_aside['idle']}"
    assert engine.asked.count("0") == 120
    again, engine = run(registry, "one", "idle")
    assert engine.asked == []
    assert "it is disabled (measured: it changes nothing)" in again.set_aside["idle"]


def test_nothing_is_recorded_where_no_adapter_is_left(registry: Registry) -> None:
    with pytest.raises(SilentAdapterError, match="no adapter is left to profile; idle: adapter idle answered exactly"):
        run(registry, "idle")
    with pytest.raises(InputError, match="no adapter is left to profile; idle: it is disabled"):
        run(registry, "idle")
    assert registry.latest_profile() is None


def test_an_adapter_that_nobody_has_or_of_another_base_is_refused(registry: Registry) -> None:
    with pytest.raises(UnknownNameError, match="no adapter named 'four'"):
        run(registry, "four")
    other = BaseModelFolder("large", Path("large"), "c" * 64)
    with pytest.raises(InputError, match="one is for tiny, and this profile for large: profile it with --base tiny"):
        bring([GivenAdapter(name="one")], other, registry, ANY)


def test_a_killed_run_measures_nothing_twice(registry: Registry) -> None:
    engine = SkilledEngine(TARGETS, dies_after=130)
    suite = Suite(name="mine", base_model="tiny", tasks=TARGETS, adapters=(GivenAdapter(name="one"),))
    prepared = Prepared(suite, BASE, (), 0.0)
    with pytest.raises(KeyboardInterrupt):
        profile_prepared(prepared, registry, Path("unused"), engine=engine)
    engine.dies_after = None
    profile_prepared(prepared, registry, Path("unused"), engine=engine)
    assert len(engine.asked) == 240


def test_later_rows_join_and_fits_go_on_from_such_a_profile(registry: Registry) -> None:
    _, engine = run(registry, "one")
    measure_row(registry.adapter("two"), engine, registry, BASE, full=True)
    assert share(registry, "sums", "two") > 0.9
    refit(registry)
    assert share(registry, "sums", "two") > 0.9
    assert share(registry, "mood", "one") > 0.9


def test_measuring_without_a_profile_names_the_command_that_makes_one(registry: Registry) -> None:
    wanted = f"traitroute profile --registry {registry.location} --adapter idle --adapter one --adapter three …"
    with pytest.raises(InputError, match="the registry holds no profile yet") as refused:
        measure_row(registry.adapter("one"), SkilledEngine(TARGETS), registry, BASE)
    assert f"`{wanted} --targets FOLDER`" in str(refused.value)


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_a_report_says_what_is_not_known_without_training_data(
    registry: Registry, tmp_path: Path, names: tuple[str, ...]
) -> None:
    pytest.importorskip("matplotlib", reason="needs pip install 'traitroute[report]'")
    run(registry, *names)
    study = Study.open(registry)
    assert (study.adapters, study.sources) == (names, ())
    families = [f for f in FAMILIES if f.key != "syntax"]
    report = write_report(study, tmp_path / "report", families=families)
    reasons = {each.what: each.reason for each in report.left_out}
    for family in ("Length habits", "Similarity of the data"):
        assert "no adapter was trained on a task of this profile" in reasons[family]
    page = report.page.read_text()
    assert "Traits compare adapters: with one or two there are none to speak of." in page
    assert "source task" not in page.split("Gains and side effects")[1].split("Traits")[0]


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_skills_are_asked_of_such_a_profile_as_of_any(registry: Registry, names: tuple[str, ...]) -> None:
    run(registry, *names)
    snapshot = ProfileSnapshot.read(registry, router(registry))
    assert snapshot is not None
    skills = Skills(snapshot.only({name: registry.adapter(name) for name in names}))
    steps = [SelectRequest(task=prompts(task)[0]) for task in ("mood", "same")]
    assert [step.assigned for step in skills.plan(PlanRequest(steps=steps)).steps] == ["one", "base"]
    assert [skill.name for skill in skills.cards().skills] == list(names)
    assert [trait.trait for trait in skills.traits().traits] == [False]
    assert len(skills.matrix().gains) == len(names)
    assert "trained on" not in card_markdown(skills.card("one"))


def test_a_card_names_the_data_sets_of_the_model_card(registry: Registry) -> None:
    run(registry, "one")
    snapshot = ProfileSnapshot.read(registry, router(registry))
    assert snapshot is not None
    noted = replace(snapshot, training={"one": TrainingNote(datasets=("imdb",))})
    card = Skills(noted.only({"one": registry.adapter("one")})).card("one")
    assert "- trained on, by its model card: imdb" in card_markdown(card)
    assert metadata(card)["datasets"] == ["imdb"]


class TestFolders:
    """Adapters in folders, as PEFT saves them."""

    base = BaseModelFolder("tiny-llama", Path("tiny-llama"), "b" * 64)

    @pytest.fixture
    def registry(self, tmp_path: Path) -> Iterator[Registry]:
        with Registry.create(tmp_path / "registry.db") as registry:
            yield registry

    def bring(self, registry: Registry, *given: GivenAdapter) -> Any:
        return bring(given, self.base, registry, ANY)

    def test_an_adapter_is_recorded_with_the_data_that_its_model_card_names(
        self, registry: Registry, make_adapter: MakeAdapter
    ) -> None:
        folder = make_adapter("polite")
        (folder / "README.md").write_text("---\ndatasets:\n- acme/letters\n---\n")
        brought = self.bring(registry, GivenAdapter(name="polite", uri=str(folder)))
        assert brought.training == {"polite": TrainingNote(datasets=("acme/letters",))}
        assert registry.adapter("polite").uri == str(folder)

    def test_a_second_time_nothing_changes(self, registry: Registry, make_adapter: MakeAdapter) -> None:
        given = GivenAdapter(name="polite", uri=str(make_adapter()))
        first = self.bring(registry, given).adapters
        assert self.bring(registry, given).adapters == first

    @pytest.mark.parametrize(
        ("changes", "error", "said"),
        [
            ({"base_model_name_or_path": "other/llama"}, WeightsError, "it was trained for 'other/llama'"),
            ({"use_dora": True}, WeightsError, "cannot be served"),
        ],
    )
    def test_one_that_is_refused_stops_the_run_where_it_is_required(
        self, registry: Registry, make_adapter: MakeAdapter, changes: Any, error: type[Exception], said: str
    ) -> None:
        good = GivenAdapter(name="good", uri=str(make_adapter("good")))
        bad = GivenAdapter(name="bad", uri=str(make_adapter("bad", fill=0.2, **changes)))
        with pytest.raises(error, match=said):
            self.bring(registry, good, bad)
        brought = self.bring(registry, good, bad.model_copy(update={"required": False}))
        assert [a.name for a in brought.adapters] == ["good"]
        assert said in brought.set_aside["bad"]

    def test_two_with_the_same_weights_are_refused(self, registry: Registry, make_adapter: MakeAdapter) -> None:
        one, two = (GivenAdapter(name=name, uri=str(make_adapter(name))) for name in ("one", "two"))
        with pytest.raises(ConflictError, match="these weights are there already, as 'one'"):
            self.bring(registry, one, two)

    def test_a_name_that_other_weights_have_is_refused(self, registry: Registry, make_adapter: MakeAdapter) -> None:
        self.bring(registry, GivenAdapter(name="polite", uri=str(make_adapter("one"))))
        with pytest.raises(ConflictError, match="'polite' is there already, with other weights"):
            self.bring(registry, GivenAdapter(name="polite", uri=str(make_adapter("two", fill=0.2))))

    def test_the_hub_is_asked_only_where_it_is_allowed(self, registry: Registry) -> None:
        with pytest.raises(SourceError, match="the Hub is switched off here"):
            self.bring(registry, GivenAdapter(name="legal", uri="acme/legal-lora@v2"))


def make_folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def test_adapters_are_found_below_a_folder_and_not_inside_each_other(tmp_path: Path) -> None:
    make_folders(tmp_path, "legal", "legal/checkpoint-10", "tone/v1", "law/v1", "my adapter!", "a/b/c/d/e/f/deep")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_adapters(tmp_path)
    assert [(a.name, a.uri) for a in found] == [
        ("law-v1", str(tmp_path / "law/v1")),
        ("legal", str(tmp_path / "legal")),
        ("my-adapter", str(tmp_path / "my adapter!")),
        ("tone-v1", str(tmp_path / "tone/v1")),
    ]
    assert not any(a.required for a in found)
    assert DEEPEST == 6


def test_a_folder_that_is_an_adapter_is_found_itself(tmp_path: Path) -> None:
    make_folders(tmp_path, "polite")
    assert [a.name for a in find_adapters(tmp_path / "polite")] == ["polite"]


def test_a_folder_without_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no adapter"):
        find_adapters(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        find_adapters(tmp_path / "nowhere")


def test_a_search_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folders(tmp_path, "a", "b", "c")
    monkeypatch.setattr("traitroute.profiling.given.MOST_ADAPTERS", 2)
    with pytest.raises(InputError, match="holds more than 2 adapters"):
        find_adapters(tmp_path)
    monkeypatch.setattr("traitroute.profiling.given.MOST_FOLDERS", 2)
    with pytest.raises(InputError, match="holds more than 2 folders"):
        find_adapters(tmp_path)


@pytest.mark.parametrize(("text", "said"), [("=./x", "cannot be a name"), ("a=", "no place follows"), ("a b", "name")])
def test_what_names_no_adapter_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        named_adapter(text)


def test_the_base_model_is_the_one_that_all_configurations_name(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    one, two = (named_adapter(f"{name}={make_adapter(name)}") for name in ("one", "two"))
    other = named_adapter(f"other={make_adapter('other', base_model_name_or_path='acme/large')}")
    assert stated_base([named_adapter("known"), one, two]) == "tiny-llama"
    assert stated_base([named_adapter("known")]) is None
    with pytest.raises(InputError, match="a profile is of one base model"):
        stated_base([one, other])


def test_weights_named_in_skills_are_those_of_the_fixture() -> None:
    assert set(NAMES.values()) - set(SKILLS) == {"0"}
