"""Composites are tried, and one is admitted only where it is surely better than the best adapter by itself.

All candidates are measured on a few anchors of one half of the target's examples, the better half of them on more. The
best is then held against the best single adapter on the other half, which chose nothing, and is admitted where it is
better beyond an interval that allows for all candidates that were tried. Its row is measured like that of any other
adapter, and its recipe is kept with the profile, for its card.

What is measured is kept under the digest of the merged weights, so a killed run, given again, repeats no answer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ...adapters import (
    Adapter,
    AdapterState,
    Composite,
    ConflictError,
    InputError,
    Recipe,
    Registry,
    TrainingNote,
    check_name,
)
from ...serving.engines import Engine
from ..base_model import BaseModelFolder
from ..matrix.anchors import AnchorRow
from ..matrix.measure import measured_cell
from ..matrix.profiled import task_anchors
from ..matrix.row import SHARE, MeasuredRow, RowMeter, measure_row
from ..matrix.votes import Votes
from ..statistics.significance import score_bounds
from .merging import Merger
from .proposals import Array, Composer, Places

BASE = "base"


@dataclass(frozen=True)
class Tried:
    """A candidate that was merged, and its score on the choosing half as estimated from so many `examples`."""

    recipe: Recipe
    score: float
    examples: int


@dataclass(frozen=True)
class Composed:
    """All that were `tried`, the best first; the `score` of the best single adapter where they were chosen; and how the
    best did against it where nothing was chosen. `row` is that of the new adapter `name`, None where it was not
    admitted.
    """

    tried: tuple[Tried, ...]
    score: float
    found: Composite
    name: str
    row: MeasuredRow | None


def least_lead(examples: int, tried: int) -> float:
    """The smallest lead, in right answers, that admits the best of so many `tried`: one that loses no other."""
    low, _ = score_bounds(np.triu(np.ones((examples, examples))), tried=tried)
    return (int(np.argmax(low > 0)) + 1) / examples


def compose(
    composer: Composer,
    engine: Engine,
    base: BaseModelFolder,
    *,
    name: str | None = None,
    share: float = SHARE,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_answers: Callable[[int, int], None] = lambda done, of: None,
) -> Composed:
    """Try candidates, hold the best against the best single adapter, and admit it where it is surely better.

    `on_answers` is called with the number of candidates' answers that were measured, and of how many.

    Raises:
        InputError: nothing can be merged, a method cannot merge it, or the name is taken.
        SilentAdapterError: what was merged changes nothing.
    """
    _check_free(composer.registry, name)
    trial = _Trial(composer, engine, base, on_answers)
    on_stage("measure single adapters")
    alone = {adapter.name: trial.scores(adapter) for adapter in composer.singles()}
    of_base = trial.scores(None)
    recipes = composer.propose({each: scores.choose - of_base.choose for each, scores in alone.items()})
    alone[BASE] = of_base
    single = max(alone, key=lambda each: alone[each].choose.mean())
    on_stage(f"merge and measure {len(recipes)} candidates")
    with trial.merged(recipes) as candidates:
        ranked = trial.rank(candidates)
        best = ranked[0]
        on_stage("judge the best by other examples")
        found = trial.judged(best, single, alone[single], tried=len(recipes))
        called = name or _composite_name(best)
        row = None
        if found.low > 0:
            on_stage(f"measure the row of {called}")
            row = trial.admit(best, called, found, share)
    tried = tuple(Tried(c.recipe, c.score, c.row.done) for c in ranked)
    return Composed(tried, float(alone[single].choose.mean()), found, called, row)


@dataclass(frozen=True)
class _Scores:
    """Scores of the target's examples: of those by which is chosen, and of the others."""

    choose: Array
    judge: Array


@dataclass(frozen=True)
class _Candidate:
    """A recipe that was merged, and what was measured of it; `row` is over the choosing half."""

    recipe: Recipe
    adapter: Adapter
    meter: RowMeter
    row: AnchorRow

    @property
    def score(self) -> float:
        """The mean score expected on the choosing half."""
        return float(np.concatenate(self.row.estimate().examples).mean())


class _Trial:
    """Measures candidates and single adapters on one engine."""

    def __init__(
        self, composer: Composer, engine: Engine, base: BaseModelFolder, on_answers: Callable[[int, int], None]
    ) -> None:
        self._composer, self._engine, self._base, self._on_answers = composer, engine, base, on_answers
        self._profiled, self._halves = composer.profiled, composer.halves
        known = [None, *self._profiled.whole]
        self._anchors = [
            task_anchors(task, [self._profiled.outcomes(each, task) for each in known], places)
            for task, places in zip(self._halves.tasks, self._halves.choose, strict=True)
        ]
        self._done = self._total = 0

    def scores(self, adapter: Adapter | None) -> _Scores:
        """The scores of an adapter by itself (None: base), measured in full on this engine unless they were."""
        whole = []
        for task in self._halves.tasks:
            outcomes = measured_cell(self._engine, self._composer.registry, self._base, adapter, task).outcomes
            votes = Votes.kept_in(self._profiled.outcomes(None, task))
            whole.append(task.scores(votes.scored(outcomes, adapter) if votes else outcomes))
        choose, judge = (
            np.concatenate([scores[places] for scores, places in zip(whole, half, strict=True)])
            for half in (self._halves.choose, self._halves.judge)
        )
        return _Scores(choose, judge)

    @contextmanager
    def merged(self, recipes: Sequence[Recipe]) -> Iterator[list[_Candidate]]:
        """The candidates, in the weight store; those that did not become adapters leave it afterwards."""
        registry, weights = self._composer.registry, self._composer.registry.weights
        merger = Merger(self._composer.parents(), weights)
        candidates: list[_Candidate] = []
        try:
            for recipe in recipes:
                with weights.scratch_folder() as scratch:
                    merger.merge(recipe, scratch / "merged")
                    files = weights.add(scratch / "merged")
                adapter = files.adapter("composite", self._base.name, self._base.digest)
                meter = RowMeter(self._engine, registry, self._base, adapter, self._profiled)
                candidates.append(_Candidate(recipe, adapter, meter, AnchorRow(self._anchors)))
            yield candidates
        finally:
            named = registry.named_weights()
            for digest in {c.adapter.weights_digest for c in candidates} - set(named):
                weights.mark(digest)
                weights.free(digest)

    def rank(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Measure all on a few anchors and the better half on more, and return them with the best first."""
        search, choosing = self._composer.search, candidates[0].row.size
        self._total = search.answers(len(candidates), choosing) + sum(map(len, self._halves.judge))
        return search.ranked(candidates, choosing, self._measure, lambda candidate: candidate.score)

    def judged(self, best: _Candidate, single: str, against: _Scores, *, tried: int) -> Composite:
        """Measure a candidate on the examples that chose nothing, and compare."""
        ours = np.concatenate(list(self._parts(best, dict(enumerate(self._halves.judge))).values()))
        lead = ours - against.judge
        low, _ = score_bounds(lead[:, None], tried=tried)
        tasks = tuple(task.name for task in self._halves.tasks)
        return Composite(best.recipe, tasks, single, len(lead), tried, float(lead.mean()), float(low[0]))

    def admit(self, best: _Candidate, name: str, found: Composite, share: float) -> MeasuredRow:
        """Record the candidate as an adapter, and measure its row like any other's."""
        registry, parents = self._composer.registry, [p.adapter for p in self._composer.parents()]
        of = [p for p in parents if p.name in best.recipe.parents]
        licences = {p.licence for p in of}
        # A tag may say who may use an adapter, so what is made of several has only those that all of them have.
        tags = tuple(tag for tag in of[0].tags if all(tag in p.tags for p in of))
        licence = licences.pop() if len(licences) == 1 else None
        adapter = best.adapter.model_copy(update={"name": name, "tags": tags, "licence": licence})
        if (known := _with_name(registry, name)) is None:
            adapter = registry.add_adapter(adapter)
        elif known.weights_digest != adapter.weights_digest:
            raise ConflictError(f"an adapter named {name!r} is there already, with other weights: give another --name")
        else:
            adapter = known
        note = TrainingNote(composite=found)
        return measure_row(adapter, self._engine, registry, self._base, share=share, note=note)

    def _measure(self, candidate: _Candidate, count: int) -> None:
        """Measure a candidate on the `count` anchors of the choosing half that tell most next."""
        chosen = candidate.row.next(count)
        parts = {task: self._halves.choose[task][places] for task, places in chosen.items()}
        for task, scores in self._parts(candidate, parts).items():
            candidate.row.add(task, chosen[task], scores)

    def _parts(self, candidate: _Candidate, parts: Mapping[int, Places]) -> dict[int, Array]:
        """The scores of a candidate on some examples of the target's tasks."""
        place = {task: self._profiled.tasks.index(self._halves.tasks[task]) for task in parts}
        candidate.meter.measure_parts({place[task]: places for task, places in parts.items()})
        self._done += sum(map(len, parts.values()))
        self._on_answers(self._done, self._total)
        measured = candidate.meter.row.measured
        return {task: measured[place[task]][1][-len(places) :] for task, places in parts.items()}


def _check_free(registry: Registry, name: str | None) -> None:
    if name is None:
        return
    try:
        check_name(name)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    # One that is pending may be what a killed run added.
    if (known := _with_name(registry, name)) is not None and known.state is not AdapterState.PENDING:
        raise InputError(f"an adapter named {name!r} is there already: give another --name")


def _with_name(registry: Registry, name: str) -> Adapter | None:
    return next(iter(registry.adapters(names=[name])), None)


def _composite_name(best: _Candidate) -> str:
    """A name that tells the parents, and is another for each recipe."""
    parents = "-".join(best.recipe.parents)[:50].rstrip("-._")
    return f"{parents}-{best.adapter.weights_digest[:6]}"
