"""Compare adapters on requests that recur and that nothing profiled is like, by a judge whose errors are known.

The requests are those of which servers keep a few texts (`serving/traffic/sampling.py`); nobody knows their right
answers. Base and the likeliest adapters answer them, and a judge says of each adapter's answer whether it is better
than base's. How far that is to be believed, the same judge shows on profiled tasks, with the same adapters, where the
metric says who was right (`judge_trial.py`).

A kind is worth admitting where what the profile would then choose is surely better than what it chooses now: where the
lower bound of that lead is above zero. It joins the profile (`router/recurring.py`) where the operator says so. No
answer and no text is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..adapters import (
    Adapter,
    InputError,
    JudgedKind,
    MetricError,
    RefusalError,
    Registry,
    RegistryError,
    Sample,
    ServerError,
    StoredProfile,
    SuiteError,
)
from ..router import Router, RoutingProfile
from ..serving.engines import Engine, EngineRequest
from ..serving.traffic.sampling import KEY, SampleKeys
from .judge_trial import LEAST_TASKS, JudgeTrial, TrialCell
from .matrix.profiled import profiled_tasks
from .tasks.metrics import Answer, Example
from .tasks.metrics.judge import Judge
from .tasks.task import Task

Array = NDArray[np.float64]
LEAST_REQUESTS = 20
"""Fewer requests of a kind are not compared."""
ADAPTERS = 5
"""So many adapters answer, those of the highest predicted gain."""
TRIAL_TASKS, TRIAL_ANSWERS = 20, 20
MAX_TOKENS = 256
Allowed = Callable[[str | None, Adapter], bool]
"""Whether the texts of a tenant (None: the operator) may be answered by an adapter."""


@dataclass(frozen=True)
class Comparison:
    """What the judge made of a kind: of the `adapters` compared, mean `verdicts` (a,) on so many `counts` (a,) of their
    answers, the `predicted` mean gains (a,), those believed after the verdicts, `gains` (a,), and their `errors`.

    `before` (a,) are the shares of the requests that the profile gives each adapter now, `after` those with what was
    judged; base has the rest. That is better by `lead`, `low` being the lower bound.
    """

    kind: str
    requests: int
    adapters: tuple[str, ...]
    verdicts: Array
    counts: NDArray[np.intp]
    predicted: Array
    gains: Array
    errors: Array
    before: Array
    after: Array
    lead: float
    low: float
    features: Array = field(repr=False)

    @property
    def worth_it(self) -> bool:
        """Whether what was judged is surely better to go by."""
        return self.low > 0


@dataclass
class Comparer:
    """Compares kinds on `engine`, where the registry's adapters are served, by `judge`; the texts are read by `keys`.

    The trial is made once, for all kinds, on up to `trial_tasks` tasks of the profile.
    """

    registry: Registry
    engine: Engine
    judge: Judge
    keys: SampleKeys
    allowed: Allowed = lambda tenant, adapter: tenant is None
    adapters: int = ADAPTERS
    trial_tasks: int = TRIAL_TASKS
    trial_answers: int = TRIAL_ANSWERS
    say: Callable[[str], None] = lambda text: None

    def compare(self, kinds: Sequence[str] = ()) -> list[Comparison]:
        """Compare the adapters on the kinds given, or on all of which enough requests are kept.

        Raises:
            InputError: none of them has enough requests that may be compared, or no key reads them.
            MetricError: the judge cannot be asked, or cannot be believed at all.
            ServerError: the server is away, or refuses.
        """
        stored = self.registry.latest_profile()
        if stored is None:
            raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
        profile = RoutingProfile.from_bytes(stored.data)
        ready = self.registry.routable_names()
        records = [a for a in self.registry.adapters() if a.name in ready and a.name in profile.adapters]
        texts = {kind: texts for kind in kinds or self._kinds() if (texts := self._texts(kind, records))}
        if not texts:
            raise InputError(
                f"no kind has {LEAST_REQUESTS} requests that {KEY} reads and that may be compared: "
                "traitroute samples list"
            )
        profile = profile.take([profile.adapters.index(a.name) for a in records])
        for kind in texts:
            if profile.recurring is not None and kind in profile.recurring.names:
                profile = profile.without_kind(kind)
        compared = self._likeliest(profile, records, texts)
        trial = self.try_judge(stored, compared)
        self.say(
            f"tried on {trial.tasks} tasks: verdicts move by {trial.slope:.2f} ± {trial.slope_error:.2f} from wrong to "
            f"right, and lean to what an adapter writes on a task by {trial.liking**0.5:.2f} at most"
        )
        return [self._compare(kind, texts[kind], profile, compared, trial) for kind in texts]

    def try_judge(self, stored: StoredProfile, adapters: Sequence[Adapter]) -> JudgeTrial:
        """Have the judge compare answers of `adapters` and base on profiled tasks, where the right ones are known.

        Raises:
            MetricError: too few tasks can be used, or the judge cannot be believed at all.
        """
        cells: list[TrialCell] = []
        known = profiled_tasks(self.registry, stored.summary)
        tasks, used = [known[i] for i in np.random.default_rng(0).permutation(len(known))], 0
        for task in tasks:
            # A task that a judge scores knows no right answers.
            if used == self.trial_tasks or task.metric.against_base or task.metric.without_answers:
                continue
            try:
                examples = task.test_examples[: self.trial_answers]
            except (InputError, SuiteError) as exc:
                self.say(f"the judge is not tried on {task.name}: {exc}")
                continue
            cells += self._trial_cells(task, examples, adapters)
            used += 1
            self.say(f"tried on {task.name}, {used} of up to {min(self.trial_tasks, len(tasks))}")
        if used < LEAST_TASKS:
            raise MetricError(
                f"the judge can be tried on {used} of the profile's tasks, and it takes {LEAST_TASKS}: give more tasks "
                "with right answers (traitroute tasks add)"
            )
        return JudgeTrial.of(cells)

    def _trial_cells(self, task: Task, examples: list[Example], adapters: Sequence[Adapter]) -> list[TrialCell]:
        ask = partial(_asked, tools=True, max_tokens=task.max_tokens)
        base = [result.text for result in self.engine.run([ask(example, None) for example in examples])]
        of_base = _scores(task, base, examples)
        cells = []
        for adapter in adapters:
            outputs = [result.text for result in self.engine.run([ask(example, adapter) for example in examples])]
            verdicts = self._verdicts([_shown(example) for example in examples], outputs, base)
            cells.append(TrialCell(adapter.name, task.name, verdicts, _scores(task, outputs, examples) - of_base))
        return cells

    def _kinds(self) -> list[str]:
        return list(dict.fromkeys(sample.kind for sample in self.registry.samples()))

    def _texts(self, kind: str, records: Sequence[Adapter]) -> list[tuple[Sample, str]]:
        """The requests of a kind that can be read and that some adapter may answer; none where they are too few."""
        read = [
            (sample, text)
            for sample in self.registry.samples(kind)
            if (text := self.keys.decrypt(sample.text)) is not None
            and any(self.allowed(sample.tenant, adapter) for adapter in records)
        ]
        return read if len(read) >= LEAST_REQUESTS else []

    def _likeliest(
        self, profile: RoutingProfile, records: Sequence[Adapter], texts: dict[str, list[tuple[Sample, str]]]
    ) -> list[Adapter]:
        """The adapters of the highest predicted gain on any of the kinds, and those that are chosen now."""
        by_kind = [profile.predict_many([text for _, text in of_kind]).gains.mean(axis=0) for of_kind in texts.values()]
        router = Router(profile)
        now = {i for of in texts.values() for i in router.choose([text for _, text in of]).chosen.tolist() if i >= 0}
        order = np.argsort(-np.max(by_kind, axis=0), kind="stable").tolist()
        places = sorted({*order[: self.adapters], *now})
        return [next(a for a in records if a.name == profile.adapters[i]) for i in places]

    def _compare(
        self,
        kind: str,
        requests: list[tuple[Sample, str]],
        profile: RoutingProfile,
        adapters: Sequence[Adapter],
        trial: JudgeTrial,
    ) -> Comparison:
        texts = [text for _, text in requests]
        examples = [Example(prompt=text, target="", answer="") for text in texts]
        verdicts: list[Array] = [np.zeros(0)] * len(adapters)
        try:
            base = [r.text for r in self.engine.run([_asked(example, None) for example in examples])]
            for i, adapter in enumerate(adapters):
                mine = [n for n, (sample, _) in enumerate(requests) if self.allowed(sample.tenant, adapter)]
                if not mine:
                    continue
                results = self.engine.run([_asked(examples[n], adapter) for n in mine])
                said = self._verdicts([examples[n] for n in mine], [r.text for r in results], [base[n] for n in mine])
                verdicts[i] = said
        except (RefusalError, ServerError, InputError) as exc:
            # What a server says may repeat the text that it was sent.
            raise ServerError(
                f"the server could not answer the requests of kind {kind} ({type(exc).__name__}): see its log"
            ) from None
        places = [profile.adapters.index(adapter.name) for adapter in adapters]
        predicted = profile.predict_many(texts).gains.mean(axis=0)[places]
        believed = trial.judged(verdicts, predicted, profile.error_unknown)
        features, error = profile.features.transform(texts), float(np.sqrt(believed.variances.max()))
        beyond = np.zeros(len(profile.adapters))
        beyond[places] = believed.means - predicted
        before, after = (
            np.array([(Router(each).choose(texts).chosen == place).mean() for place in places])
            for each in (profile, profile.with_kind(kind, features, beyond, error))
        )
        lead, low = believed.lead(before, after)
        return Comparison(
            kind=kind,
            requests=len(texts),
            adapters=tuple(adapter.name for adapter in adapters),
            verdicts=np.array([each.mean() if len(each) else 0.0 for each in verdicts]),
            counts=np.array([len(each) for each in verdicts]),
            predicted=predicted,
            gains=believed.means,
            errors=np.sqrt(believed.variances),
            before=before,
            after=after,
            lead=lead,
            low=low,
            features=features,
        )

    def _verdicts(self, examples: Sequence[Example], outputs: Sequence[str], base: Sequence[str]) -> Array:
        """What the judge says of each output, from -1 (base's is better) to 1."""
        answers = [Answer(*each) for each in zip(outputs, examples, base, strict=True)]
        try:
            return 2 * np.array(self.judge.scores(answers)) - 1
        except MetricError as exc:
            if exc.__cause__ is None:
                raise
            # What its server says may repeat the texts that it was sent.
            raise MetricError(
                f"the judge {self.judge.model!r} at {self.judge.url} could not be asked "
                f"({type(exc.__cause__).__name__}): its verdicts until now are kept"
            ) from None


def admit(registry: Registry, comparison: Comparison, judge: str) -> int:
    """Have a compared kind join the newest profile, and return the new version.

    Raises:
        ConflictError: another profile came first.
    """
    stored = registry.latest_profile()
    if stored is None:
        raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
    profile = RoutingProfile.from_bytes(stored.data)
    beyond = np.zeros(len(profile.adapters))
    for name, of_name in zip(comparison.adapters, comparison.gains - comparison.predicted, strict=True):
        if name in profile.adapters:
            beyond[profile.adapters.index(name)] = of_name
    note = JudgedKind(
        kind=comparison.kind,
        judge=judge,
        judged_at=datetime.now(UTC).isoformat(timespec="seconds"),
        requests=comparison.requests,
        lead=comparison.lead,
        low=comparison.low,
        adapters=comparison.adapters,
        gains=tuple(comparison.gains.tolist()),
    )
    kept = [each for each in stored.summary.recurring if each.kind != comparison.kind]
    data = profile.with_kind(comparison.kind, comparison.features, beyond, float(comparison.errors.max())).to_bytes()
    summary = stored.summary.changed(recurring=(*kept, note))
    return registry.put_profile(data, summary, origin="kind", parent=stored.version)


def remove(registry: Registry, kind: str) -> int:
    """Take a recurring kind out of the newest profile, and return the new version.

    Raises:
        RegistryError: the profile has no such kind.
        ConflictError: another profile came first.
    """
    stored = registry.latest_profile()
    if stored is None:
        raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
    data = RoutingProfile.from_bytes(stored.data).without_kind(kind).to_bytes()
    kept = tuple(each for each in stored.summary.recurring if each.kind != kind)
    return registry.put_profile(data, stored.summary.changed(recurring=kept), origin="kind", parent=stored.version)


def _asked(
    example: Example, adapter: Adapter | None, *, tools: bool = False, max_tokens: int = MAX_TOKENS
) -> EngineRequest:
    return EngineRequest(
        messages=example.messages, adapter=adapter, max_tokens=max_tokens, tools=example.tools if tools else ()
    )


def _shown(example: Example) -> Example:
    """The example as the judge may see it: without the right answer, which it will not be told of the requests."""
    return example.model_copy(update={"answer": "", "target": "", "columns": {}})


def _scores(task: Task, outputs: Sequence[str], examples: Sequence[Example]) -> Array:
    """How well outputs do by what routing goes by on the task, (n,)."""
    judged = task.judge(outputs, examples)
    if task.score == "metric":
        return np.array([each.score for each in judged])
    return np.array([float(getattr(each, task.score)) for each in judged])
