"""Compare adapters on requests that recur and that nothing profiled is like, by a referee whose errors are known.

The requests are those of which servers keep a few texts (`serving/traffic/sampling.py`); nobody knows their right
answers. Base and the likeliest adapters answer them, and a referee (`referees.py`), which may be a judge, says of each
adapter's answer whether it is better than base's. How far that is to be believed, it shows on profiled tasks, with the
same adapters, where the metric says who was right (`judge_trial.py`).

A kind is worth admitting where what the profile would then choose is surely better than what it chooses now: where the
lower bound of that lead is above zero. What was found is kept in the registry, as figures: no answer and no text is. A
kind joins the profile (`router/recurring.py`) where the operator says so.

A plan is made first, and then done a task and a kind at a time, so that a worker may be killed between any two
(`jobs/comparing.py`); `traitroute samples compare` does the same in one go.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..adapters import (
    Adapter,
    DemandWindow,
    InputError,
    KindComparison,
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
from .referees import Outputs, Referee
from .tasks.metrics import Example
from .tasks.task import Task

Array = NDArray[np.float64]
LEAST_REQUESTS = 20
"""Fewer requests of a kind are not compared."""
ADAPTERS = 5
"""So many adapters answer, those of the highest predicted gain, and at most as many more that are chosen now."""
TRIAL_TASKS, TRIAL_ANSWERS = 20, 20
MAX_TOKENS = 256
Allowed = Callable[[str | None, Adapter], bool]
"""Whether the texts of a tenant (None: the operator) may be answered by an adapter."""


@dataclass(frozen=True)
class Plan:
    """Which `kinds` are compared by the profile of this `version`, on which `adapters` (name and weights' digest), and
    the `tasks` on which the referee is tried first. It is JSON too."""

    version: int
    kinds: tuple[str, ...]
    adapters: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For a job to keep."""
        return asdict(self)

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Self:
        """The plan that was kept."""
        adapters = tuple((name, weights) for name, weights in kept["adapters"])
        return cls(kept["version"], tuple(kept["kinds"]), adapters, tuple(kept["tasks"]))


class StalePlanError(InputError):
    """An adapter of the plan was removed, disabled or replaced meanwhile."""


@dataclass
class Comparer:
    """Compares kinds on `engine`, where the registry's adapters are served, by `referee`; the texts are read by `keys`.

    The trial is made once for all kinds of a plan, on up to `trial_tasks` tasks of the profile.
    """

    registry: Registry
    engine: Engine
    referee: Referee
    keys: SampleKeys
    allowed: Allowed = lambda tenant, adapter: tenant is None
    adapters: int = ADAPTERS
    trial_tasks: int = TRIAL_TASKS
    trial_answers: int = TRIAL_ANSWERS
    say: Callable[[str], None] = lambda text: None
    _last: tuple[bytes, list[str], list[Outputs]] | None = field(default=None, repr=False)

    def compare(self, kinds: Sequence[str] = ()) -> list[KindComparison]:
        """Compare the adapters on the kinds given, or on all of which enough requests are kept, and keep what was
        found.

        Raises:
            InputError: none of them has enough requests that may be compared, or no key reads them.
            MetricError: the referee cannot be used, or cannot be believed at all.
            ServerError: the server is away, or refuses.
        """
        plan = self.plan(kinds)
        cells: list[TrialCell] = []
        for i, task in enumerate(plan.tasks, 1):
            cells += self.try_on(plan, task)
            self.say(f"tried on {task}, {i} of {len(plan.tasks)}")
        trial = JudgeTrial.of(cells)
        self.say(
            f"tried on {trial.tasks} tasks: verdicts move by {trial.slope:.2f} ± {trial.slope_error:.2f} from wrong to "
            f"right, and lean to what an adapter writes on a task by {trial.liking**0.5:.2f} at most"
        )
        return [self.compare_kind(plan, kind, trial) for kind in plan.kinds]

    def ready(self) -> list[str]:
        """The kinds of which enough requests can be read and compared, those with the most first."""
        if (stored := self.registry.latest_profile()) is None:
            return []
        records = self._records(RoutingProfile.from_bytes(stored.data))
        sizes = {kind: len(self._texts(kind, records)) for kind in self._kinds()}
        return sorted((kind for kind, size in sizes.items() if size), key=lambda kind: -sizes[kind])

    def plan(self, kinds: Sequence[str] = ()) -> Plan:
        """What is to be done to compare the kinds given, or all that are ready.

        Raises:
            InputError: none is ready.
            MetricError: the referee can be tried on too few tasks.
        """
        stored = self._newest()
        profile = RoutingProfile.from_bytes(stored.data)
        records = self._records(profile)
        texts = {kind: texts for kind in kinds or self._kinds() if (texts := self._texts(kind, records))}
        if not texts:
            raise InputError(
                f"no kind has {LEAST_REQUESTS} requests that {KEY} reads and that may be compared: "
                "traitroute samples list"
            )
        likeliest = self._likeliest(self._bare(profile, records, texts), records, texts)
        tasks = self._trial_tasks(stored)
        return Plan(stored.version, tuple(texts), tuple((a.name, a.weights_digest) for a in likeliest), tuple(tasks))

    def try_on(self, plan: Plan, name: str) -> list[TrialCell]:
        """Have the referee compare answers of the adapters and base on a profiled task, where the right ones are known.

        Raises:
            MetricError: the referee cannot be used.
            StalePlanError: the adapters are others by now.
        """
        adapters = self._planned(plan)
        known = profiled_tasks(self.registry, self.registry.profile(plan.version).summary)
        task = next(each for each in known if each.name == name)
        examples = task.test_examples[: self.trial_answers]
        ask = partial(_asked, tools=True, max_tokens=task.max_tokens)
        base, outputs = self._answered(f"task {task.name}", examples, adapters, ask)
        of_base = _scores(task, base, examples)
        cells = []
        verdicts = self.referee.verdicts([_shown(example) for example in examples], adapters, outputs, base)
        for adapter, answers, said in zip(adapters, outputs, verdicts, strict=True):
            gains = _scores(task, [answer or "" for answer in answers], examples) - of_base
            told = ~np.isnan(said)
            if told.any():
                cells.append(TrialCell(adapter.name, task.name, said[told], gains[told]))
        return cells

    def compare_kind(self, plan: Plan, kind: str, trial: JudgeTrial) -> KindComparison:
        """Compare the adapters on a kind by a referee that was tried, and keep what was found.

        Raises:
            InputError: too few of its texts are left.
            ServerError: the server is away, or refuses.
            StalePlanError: the adapters are others by now.
        """
        adapters = self._planned(plan)
        profile = RoutingProfile.from_bytes(self.registry.profile(plan.version).data)
        records = self._records(profile)
        if not (requests := self._texts(kind, records)):
            raise InputError(f"fewer than {LEAST_REQUESTS} texts of kind {kind} are left")
        verdicts = self._verdicts(kind, requests, adapters)
        bare = self._bare(profile, records, [kind])
        found = self._found(plan.version, kind, [text for _, text in requests], bare, adapters, verdicts, trial)
        self.registry.put_comparison(found)
        return found

    def refuse(self, kinds: Sequence[str], why: str) -> None:
        """Keep that these kinds could not be compared by the newest profile."""
        version = self._newest().version
        for kind in kinds:
            requests = len(self.registry.samples(kind))
            known = {"kind": kind, "profile_version": version, "by": self.referee.name, "requests": requests}
            self.registry.put_comparison(KindComparison(**known, refused=why))

    def _newest(self) -> StoredProfile:
        if (stored := self.registry.latest_profile()) is None:
            raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
        return stored

    def _records(self, profile: RoutingProfile) -> list[Adapter]:
        """The adapters of the profile that servers choose from."""
        ready = self.registry.routable_names()
        return [a for a in self.registry.adapters() if a.name in ready and a.name in profile.adapters]

    def _bare(self, profile: RoutingProfile, records: Sequence[Adapter], kinds: Collection[str]) -> RoutingProfile:
        """The profile of those adapters, without what an earlier comparison of the kinds added."""
        profile = profile.take([profile.adapters.index(a.name) for a in records])
        for kind in kinds:
            if profile.recurring is not None and kind in profile.recurring.names:
                profile = profile.without_kind(kind)
        return profile

    def _planned(self, plan: Plan) -> list[Adapter]:
        ready = self.registry.routable_names()
        known = {(a.name, a.weights_digest): a for a in self.registry.adapters() if a.name in ready}
        if lost := [name for name, weights in plan.adapters if (name, weights) not in known]:
            raise StalePlanError(f"adapter {lost[0]} was removed, disabled or replaced meanwhile: compare again")
        return [known[each] for each in plan.adapters]

    def _trial_tasks(self, stored: StoredProfile) -> list[str]:
        """The tasks on which the referee is tried: some with right answers, in an order of chance."""
        known = profiled_tasks(self.registry, stored.summary)
        tasks: list[str] = []
        for task in (known[i] for i in np.random.default_rng(0).permutation(len(known))):
            # A task that a judge scores knows no right answers.
            if len(tasks) == self.trial_tasks or task.metric.against_base or task.metric.without_answers:
                continue
            try:
                assert task.test_examples
            except (InputError, SuiteError) as exc:
                self.say(f"not tried on {task.name}: {exc}")
            else:
                tasks.append(task.name)
        if len(tasks) < LEAST_TASKS:
            raise MetricError(
                f"verdicts can be tried on {len(tasks)} of the profile's tasks, and it takes {LEAST_TASKS}: give more "
                "tasks with right answers (traitroute tasks add)"
            )
        return tasks

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
        self, profile: RoutingProfile, records: Sequence[Adapter], texts: Mapping[str, Sequence[tuple[Sample, str]]]
    ) -> list[Adapter]:
        """The adapters of the highest predicted gain on any of the kinds, and those that are chosen most now."""
        by_kind = [profile.predict_many([text for _, text in of_kind]).gains.mean(axis=0) for of_kind in texts.values()]
        router = Router(profile)
        now = Counter(i for of in texts.values() for i in router.choose([t for _, t in of]).chosen.tolist() if i >= 0)
        order = np.argsort(-np.max(by_kind, axis=0), kind="stable").tolist()
        places = sorted({*order[: self.adapters], *(i for i, _ in now.most_common(self.adapters))})
        return [next(a for a in records if a.name == profile.adapters[i]) for i in places]

    def _verdicts(self, kind: str, requests: Sequence[tuple[Sample, str]], adapters: Sequence[Adapter]) -> list[Array]:
        """What the referee says of the answers of each adapter to the requests that it may answer."""
        examples = [Example(prompt=text, target="", answer="") for _, text in requests]
        of = [sample for sample, _ in requests]
        try:
            base, outputs = self._answered(f"kind {kind}", examples, adapters, _asked, of)
        except InputError as exc:
            # They do not fit, and will not when they are asked again.
            raise RefusalError(f"requests of kind {kind}: {exc}", status=400) from exc
        except ServerError as exc:
            # What a server says may repeat the text that it was sent.
            what = f"the server could not answer the requests of kind {kind} ({type(exc).__name__}): see its log"
            if isinstance(exc, RefusalError):
                raise RefusalError(what, status=exc.status) from None
            raise ServerError(what) from None
        said = self.referee.verdicts(examples, adapters, outputs, base)
        return [each[~np.isnan(each)] for each in said]

    def _answered(
        self,
        what: str,
        examples: Sequence[Example],
        adapters: Sequence[Adapter],
        ask: Callable[[Example, Adapter | None], EngineRequest],
        samples: Sequence[Sample] = (),
    ) -> tuple[list[str], list[Outputs]]:
        """What base and each adapter answer to some examples; of `samples` only those that it may answer.

        The last answers are remembered: where it is the referee that is away, they are not asked for again.
        """
        key = hashlib.sha256(repr((what, [e.prompt for e in examples], adapters)).encode()).digest()
        if self._last is None or self._last[0] != key:
            base = [result.text for result in self.engine.run([ask(example, None) for example in examples])]
            outputs: list[Outputs] = []
            for adapter in adapters:
                mine = [n for n, _ in enumerate(examples) if not samples or self.allowed(samples[n].tenant, adapter)]
                results = self.engine.run([ask(examples[n], adapter) for n in mine]) if mine else []
                answers = dict(zip(mine, (result.text for result in results), strict=True))
                outputs.append([answers.get(n) for n in range(len(examples))])
            self._last = key, base, outputs
        return self._last[1], self._last[2]

    def _found(
        self,
        version: int,
        kind: str,
        texts: Sequence[str],
        profile: RoutingProfile,
        adapters: Sequence[Adapter],
        verdicts: Sequence[Array],
        trial: JudgeTrial,
    ) -> KindComparison:
        """What is believed of the adapters after the verdicts, and what would then be chosen."""
        places = [profile.adapters.index(adapter.name) for adapter in adapters]
        predicted = profile.predict_many(texts).gains.mean(axis=0)[places]
        believed = trial.judged(verdicts, predicted, profile.error_unknown)
        features, errors = profile.features.transform(texts), np.sqrt(believed.variances)
        beyond = np.zeros(len(profile.adapters))
        beyond[places] = believed.means - predicted
        before, after = (
            np.array([(Router(each).choose(texts).chosen == place).mean() for place in places])
            for each in (profile, profile.with_kind(kind, features, beyond, float(errors.max())))
        )
        lead, low = believed.lead(before, after)
        return KindComparison(
            kind=kind,
            profile_version=version,
            by=self.referee.name,
            requests=len(texts),
            adapters=tuple(adapter.name for adapter in adapters),
            weights=tuple(adapter.weights_digest for adapter in adapters),
            verdicts=tuple(float(each.mean()) if len(each) else 0.0 for each in verdicts),
            counts=tuple(len(each) for each in verdicts),
            predicted=tuple(predicted.tolist()),
            gains=tuple(believed.means.tolist()),
            errors=tuple(errors.tolist()),
            before=tuple(before.tolist()),
            after=tuple(after.tolist()),
            lead=lead,
            low=low,
            features=DemandWindow.pack(list(features)),
        )


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
