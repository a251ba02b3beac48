"""A recurring kind is compared by a judge that is tried first, and joins the profile where that is surely better."""

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from traitroute.adapters import (
    Adapter,
    ConflictError,
    DemandWindow,
    FinishReason,
    InputError,
    MetricError,
    Registry,
    RegistryError,
    Sample,
    ServerError,
)
from traitroute.profiling import TransferMatrix, measure
from traitroute.profiling.fit import fit
from traitroute.profiling.kind_admission import admit, remove
from traitroute.profiling.recurring import Comparer
from traitroute.profiling.referees import ByAgreement, ByJudge, Referee
from traitroute.profiling.tasks.metrics import Answer
from traitroute.profiling.tasks.metrics.judge import Judge
from traitroute.router import Router, RoutingProfile
from traitroute.serving.engines import EngineRequest, EngineResult
from traitroute.serving.traffic.sampling import SampleKeys

from .conftest import BASE, SkilledEngine, adapter, task

KIND = "3f9a01c2"
METRICS = {
    "sentiment2": "exact",
    "sentiment3": "exact",
    "toxicity": "exact",
    "paraphrase": "exact",
    "entailment": "exact",
    "word_problems": "number",
    "long_arithmetic": "number",
}
TASKS = [task(name, name, test=20, metric=metric, source=False) for name, metric in METRICS.items()]
SKILLS = {
    "1": {name: skill for name, skill in zip(METRICS, (0.9, 0.6, 0.8, 0.2, 0.5, 0.1, 0.3), strict=True)},
    "2": {name: skill for name, skill in zip(METRICS, (0.2, 0.5, 0.1, 0.7, 0.4, 0.9, 0.6), strict=True)},
}
WORDS = ["zxqv", "wibble", "frobnicate", "glorp", "quux", "blarg", "snork", "fnord"]


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return [f"now {' '.join(draw.choices(WORDS, k=9))}" for _ in range(count)]


@dataclass
class Engine(SkilledEngine):
    """Answers requests of no task too: well by the adapter of these weights, badly by others."""

    good: str = "2"
    refuses: bool = False

    def _answer(self, request: EngineRequest) -> EngineResult:
        prompt = request.messages[-1]["content"]
        if not prompt.startswith("now "):
            return super()._answer(request)
        if self.refuses:
            raise ServerError(f"cannot answer {prompt!r}")
        who = request.adapter.weights_digest[0] if request.adapter else None
        return EngineResult("good" if who == self.good else "bad", 1, FinishReason.STOP, (), ())


class Knowing(Judge):
    """A judge that knows the right answers."""

    right: frozenset[str] = frozenset()

    def scores(self, answers: Sequence[Answer], task: str = "") -> list[float]:
        assert not any(a.example.answer or a.example.target for a in answers), "it is shown no right answers"
        return [self._score(answer) for answer in answers]

    def _score(self, answer: Answer) -> float:
        better, worse = answer.output in self.right, answer.base_output in self.right
        return 0.5 + (better - worse) / 2


class Fickle(Knowing):
    """Likes all answers of an adapter on every third task, whoever is right."""

    def scores(self, answers: Sequence[Answer], task: str = "") -> list[float]:
        liked = sum(map(ord, answers[0].example.prompt + answers[0].output)) % 3 == 0
        return [1.0 if liked else self._score(answer) for answer in answers]


@dataclass
class Place:
    """A profiled registry that holds samples of one kind, and what compares them."""

    registry: Registry
    keys: SampleKeys
    engine: Engine = field(default_factory=lambda: Engine(TASKS, skills=SKILLS))

    def comparer(self, judge: Judge | None = None, *, referee: Referee | None = None, **settings: object) -> Comparer:
        by = referee or ByJudge(judge or knowing())
        return Comparer(self.registry, self.engine, by, self.keys, **settings)  # pyright: ignore[reportArgumentType]

    def put(self, count: int, tenant: str | None = None) -> None:
        stored = self.registry.latest_profile()
        assert stored is not None
        profile = RoutingProfile.from_bytes(stored.data)
        until = datetime.now(UTC) + timedelta(hours=1)
        self.registry.put_samples(
            [
                Sample(
                    kind=KIND,
                    expires_at=until,
                    profile_version=1,
                    tenant=tenant,
                    features=DemandWindow.pack([profile.features.row(text)]),
                    text=self.keys.encrypt(text),
                )
                for text in texts(count)
            ],
            each=99,
            in_all=99,
        )


def knowing(kind: type[Knowing] = Knowing) -> Knowing:
    right = {e.target for t in TASKS for e in t.test_examples} | {"good"}
    return kind(model="judge", url="http://localhost:1/v1", right=frozenset(right))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, engine = tmp_path_factory.mktemp("recurring") / "registry.db", Engine(TASKS, skills=SKILLS)
    known = [adapter("one", "1"), adapter("two", "2"), adapter("three", "3")]
    with Registry.create(path) as registry:
        for each in known:
            registry.add_adapter(each)
        for t in TASKS:
            registry.put_task(t.name, t.digest, t.model_dump(mode="json"))
        cells = measure(engine, registry, BASE, known, TASKS)
        matrix = TransferMatrix.from_cells(cells)
        fitted = fit(matrix, TASKS, [None] * len(known))
        summary = fitted.summary(
            None,
            base_model="tiny",
            cells=tuple(cell.key for cell in cells),
            weights={a.name: a.weights_digest for a in known},
        )
        registry.put_profile(fitted.routing.to_bytes(), summary, ready=matrix.adapters)
    return path


@pytest.fixture
def place(profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("TRAITROUTE_SAMPLE_KEY", SampleKeys.new_key())
    keys = SampleKeys.from_environment()
    assert keys is not None
    with Registry.open(shutil.copy(profiled, tmp_path / "registry.db")) as registry:
        yield Place(registry, keys)


def test_the_adapter_that_is_better_there_is_chosen_there(place: Place) -> None:
    place.put(40)
    [found] = place.comparer().compare()
    assert (found.kind, found.requests) == (KIND, 40)
    assert dict(zip(found.adapters, found.verdicts, strict=True)) == {"one": 0.0, "two": 1.0, "three": 0.0}
    before = Router.from_registry(place.registry)
    if not found.worth_it:
        # The profile may choose it there already; then another one must be better.
        assert {before.route(text).adapter for text in texts(40)} == {"two"}
    version = admit(place.registry, KIND)
    stored = place.registry.latest_profile()
    assert stored is not None and (stored.version, stored.origin) == (version, "kind")
    [note] = stored.summary.recurring
    assert (note.kind, note.judge, note.requests) == (KIND, "judge", 40)
    after = Router.from_registry(place.registry)
    assert {after.route(text).adapter for text in texts(50)[40:]} == {"two"}
    assert place.registry.lineage()[:2] == [2, 1]
    remove(place.registry, KIND)
    restored = place.registry.latest_profile()
    assert restored is not None and restored.data == place.registry.profile(1).data
    assert restored.summary.recurring == ()
    with pytest.raises(RegistryError, match="no recurring kind"):
        remove(place.registry, KIND)


def test_who_is_chosen_wrongly_now_is_found_out(place: Place) -> None:
    router = Router.from_registry(place.registry)
    now = {router.route(text).adapter for text in texts(40)}
    place.engine.good = next(weights for weights, name in (("3", "three"), ("1", "one")) if name not in now)
    place.put(40)
    [found] = place.comparer().compare()
    assert found.worth_it and found.low > 0
    assert found.after[found.adapters.index({"1": "one", "3": "three"}[place.engine.good])] == 1


def test_a_judge_that_likes_by_task_admits_nothing(place: Place) -> None:
    place.put(40)
    try:
        [found] = place.comparer(knowing(Fickle)).compare()
    except MetricError as exc:
        assert "do not tell right answers" in str(exc)
    else:
        assert not found.worth_it


def test_few_requests_or_another_key_are_not_compared(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(19)
    with pytest.raises(InputError, match="no kind has 20 requests"):
        place.comparer().compare()
    place.put(40)
    monkeypatch.setenv("TRAITROUTE_SAMPLE_KEY", SampleKeys.new_key())
    other = SampleKeys.from_environment()
    assert other is not None
    place.keys = other
    with pytest.raises(InputError, match="no kind has 20 requests"):
        place.comparer().compare([KIND])


def test_a_tenants_texts_are_answered_by_its_adapters_alone(place: Place) -> None:
    place.put(40, tenant="kitchen")
    with pytest.raises(InputError):
        place.comparer().compare()

    def allowed(tenant: str | None, adapter: Adapter) -> bool:
        return tenant == "kitchen" and adapter.name == "two"

    [found] = place.comparer(allowed=allowed).compare()
    assert dict(zip(found.adapters, found.counts, strict=True)) == {"one": 0, "two": 40, "three": 0}


def test_an_error_repeats_no_text(place: Place) -> None:
    place.put(40)
    place.engine.refuses = True
    with pytest.raises(ServerError) as failed:
        place.comparer().compare()
    assert "frobnicate" not in str(failed.value)
    assert failed.value.__cause__ is None and failed.value.__suppress_context__


def test_a_trial_needs_tasks_with_right_answers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(40)
    with pytest.raises(MetricError, match="on 5 of the profile's tasks"):
        place.comparer(trial_tasks=5).compare()


def test_what_was_found_is_kept_and_admitted_later(place: Place) -> None:
    router = Router.from_registry(place.registry)
    now = {router.route(text).adapter for text in texts(40)}
    place.engine.good = next(weights for weights, name in (("3", "three"), ("1", "one")) if name not in now)
    place.put(40)
    with pytest.raises(RegistryError, match="was not compared"):
        admit(place.registry, KIND)
    [found] = place.comparer().compare()
    [kept] = place.registry.comparisons()
    assert kept == found
    # Its texts may be gone by then.
    place.registry.forget_expired_samples()
    assert admit(place.registry, KIND) == 2
    place.registry.forget_samples(KIND)
    assert place.registry.comparisons() == []


def test_what_is_not_worth_it_or_of_the_past_is_not_admitted(place: Place) -> None:
    place.put(40)
    [found] = place.comparer().compare()
    changed = [
        ({"low": -0.01}, RegistryError, "not worth admitting"),
        ({"low": 0.1, "weights": ("9" * 64, *found.weights[1:])}, ConflictError, "adapter one has other weights"),
        ({"low": 0.1, "profile_version": 99}, ConflictError, "fitted anew"),
    ]
    for changes, error, message in changed:
        place.registry.put_comparison(found.model_copy(update=changes))
        with pytest.raises(error, match=message):
            admit(place.registry, KIND)
    place.comparer().refuse([KIND], "the verdicts tell nothing")
    with pytest.raises(RegistryError, match="the verdicts tell nothing"):
        admit(place.registry, KIND)


def test_agreement_is_tried_and_compares_like_a_judge(place: Place) -> None:
    place.put(40)
    try:
        [found] = place.comparer(referee=ByAgreement()).compare()
    except MetricError as exc:
        assert "do not tell right answers" in str(exc)
    else:
        # Two of three adapters answer as base does, so who is alone does not win.
        assert found.by == "agreement"
        assert found.verdicts[found.adapters.index("two")] <= 0


def test_a_kind_is_compared_once_by_each_referee(place: Place) -> None:
    pytest.importorskip("dbos", reason="needs DBOS: pip install 'traitroute[worker]'")
    from traitroute.profiling.jobs.comparing import ComparingSteps

    place.put(40)
    steps = ComparingSteps(place.comparer())
    assert steps.waiting() == [KIND]
    place.comparer().compare()
    assert steps.waiting() == []
    assert "withdrawn" in steps.plan([KIND])
    assert ComparingSteps(place.comparer(referee=ByAgreement())).waiting() == [KIND]
    place.comparer(referee=ByAgreement()).refuse([KIND], "no use")
    assert ComparingSteps(place.comparer(referee=ByAgreement())).waiting() == []
