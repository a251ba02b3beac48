"""What composites are proposed: for which tasks, of which adapters, by which recipes.

The target is profiled tasks: those that are named, or those that traffic which no adapter meets is nearest to, for of
that nobody knows the right answers. Candidates are weighted sums of two or three of the best adapters there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...adapters import Adapter, AdapterState, InputError, Recipe, Registry, SuiteError, did_you_mean
from ...router import RoutingProfile
from ...serving.traffic.sampling import likeness_to
from ...serving.traffic.suggestion import groups_of
from ..matrix.profiled import Profiled
from ..tasks.task import Task
from .merging import DENSITY, SUMS, Parent, check_alone, merged_rank, read_parents

T = TypeVar("T")
Array = NDArray[np.float64]
Places = NDArray[np.intp]
NEAREST = 2
"""So many profiled tasks stand for traffic of which no right answers are known."""
PARENTS = 4
"""So many adapters are merged, in pairs and triples, and so many are measured as the best by themselves."""
CANDIDATES = 8
USUAL = ("svd", "linear", "ties", "dare_linear")
"""The methods by default, those that fit the parents' ranks. `svd` is `cat` where its rank is allowed: it is exact."""
LEAST_WEIGHT = 0.1
"""A parent's weight, as a share of the largest, however little it gains by itself."""
LEAST_EXAMPLES = 40
"""Fewer examples of the tasks in all cannot be halved."""


@dataclass(frozen=True)
class Target:
    """The profiled `tasks` on which a composite is to be better, and where that comes from."""

    tasks: tuple[str, ...]
    origin: str = "as named"

    @classmethod
    def of_traffic(cls, profiled: Profiled, rows: Array) -> Self:
        """The tasks that the largest group of requests like nothing profiled, by their features (n, p), is nearest to.

        Raises:
            InputError: there are none.
        """
        routing = RoutingProfile.from_bytes(profiled.stored.data)
        if not (groups := groups_of(rows, routing)):
            raise InputError(
                "no server has seen requests that nothing profiled is like, so the traffic asks for no composite: name "
                "what it is wanted for with --task or --kind"
            )
        share = f"{groups[0].share:.0%} of {len(rows)} requests that nothing profiled is like"
        return cls(groups[0].nearest[:NEAREST], f"nearest to {share}")

    @classmethod
    def of_kind(cls, profiled: Profiled, registry: Registry, kind: str) -> Self:
        """The tasks that a kind of recurring requests, of which servers keep samples, is nearest to.

        Raises:
            InputError: no samples of it are kept, or none since the profile was fitted.
        """
        lineage = set(registry.lineage())
        rows = [sample.row() for sample in registry.samples(kind) if sample.profile_version in lineage]
        if not rows:
            raise InputError(
                f"no samples of kind {kind!r} are kept that fit the profile: traitroute samples list says which are"
            )
        routing = RoutingProfile.from_bytes(profiled.stored.data)
        near = likeness_to(np.mean(rows, axis=0, keepdims=True), routing.centroids, routing)[0]
        tasks = tuple(routing.tasks[i] for i in np.argsort(-near)[:NEAREST])
        return cls(tasks, f"nearest to {len(rows)} requests of kind {kind}")


@dataclass(frozen=True)
class Halves:
    """The target's tasks, and by task the examples by which is chosen, and those that judge what was chosen."""

    tasks: tuple[Task, ...]
    choose: tuple[Places, ...]
    judge: tuple[Places, ...]

    @classmethod
    def of(cls, profiled: Profiled, target: Target) -> Self:
        """Draw the halves, always the same.

        Raises:
            InputError: a task is not of the profile, or they have too few examples.
        """
        known = {task.name: task for task in profiled.tasks}
        if lost := [name for name in target.tasks if name not in known]:
            raise InputError(f"the profile has no task {lost[0]!r}{did_you_mean(lost[0], known)}")
        tasks = tuple(known[name] for name in dict.fromkeys(target.tasks))
        rng = np.random.default_rng(0)
        drawn = [rng.permutation(len(task.test_examples)).astype(np.intp) for task in tasks]
        if (count := sum(map(len, drawn))) < LEAST_EXAMPLES:
            raise SuiteError(
                f"{', '.join(target.tasks)}: there are {count} examples, and {LEAST_EXAMPLES} are needed, half to "
                "choose by and half to judge by: profile more of them, or name more tasks"
            )
        choose = tuple(np.sort(each[: len(each) // 2]) for each in drawn)
        return cls(tasks, choose, tuple(np.sort(each[len(each) // 2 :]) for each in drawn))


@dataclass(frozen=True)
class Search:
    """How candidates are made and measured: of `adapters`, of the best ones where none are named; `methods` are those
    of `USUAL` that fit. `most_rank` is by default the highest rank of the registry's adapters.

    The better candidates are measured on up to `examples` of the target's choosing half.
    """

    adapters: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    density: float = DENSITY
    most_rank: int | None = None
    candidates: int = CANDIDATES
    examples: int = 48
    seed: int = 0

    def ranked(
        self, candidates: Sequence[T], choosing: int, measure: Callable[[T, int], None], score: Callable[[T], float]
    ) -> list[T]:
        """The candidates, the best first: all are measured on a third of the examples, the better half on all.

        `measure` measures one on so many more of the `choosing` examples, and `score` tells how it does.
        """
        few, better, most = self._rounds(len(candidates), choosing)
        for each in candidates:
            measure(each, few)
        ranked = sorted(candidates, key=score, reverse=True)
        for each in ranked[:better]:
            measure(each, most - few)
        return [*sorted(ranked[:better], key=score, reverse=True), *ranked[better:]]

    def answers(self, candidates: int, choosing: int) -> int:
        """How many answers choose between so many candidates."""
        few, better, most = self._rounds(candidates, choosing)
        return few * candidates + (most - few) * better

    def _rounds(self, candidates: int, choosing: int) -> tuple[int, int, int]:
        """How many of so many examples all candidates are measured on, how many go on, and on how many these are."""
        most = min(self.examples, choosing)
        return max(most // 3, 1), -(-candidates // 2), most


@dataclass(frozen=True)
class Composer:
    """Proposes composites of the adapters of the newest profile of `registry` for `target`."""

    registry: Registry
    profiled: Profiled
    target: Target
    halves: Halves
    search: Search

    @classmethod
    def of(cls, registry: Registry, profiled: Profiled, target: Target, search: Search) -> Self:
        """A composer, and what it needs checked.

        Raises:
            InputError: a task of the target is not of the profile, or has too few examples.
        """
        return cls(registry, profiled, target, Halves.of(profiled, target), search)

    def measured(self) -> list[Adapter]:
        """The adapters of the profile that are ready, with the weights that were measured; the best of the target's
        tasks first."""
        summary = self.profiled.summary
        places = [summary.tasks.index(task.name) for task in self.halves.tasks]
        gains = dict(zip(summary.adapters, summary.gains[:, places].mean(axis=1), strict=True))
        ready = self.registry.adapters(AdapterState.READY, names=summary.adapters)
        return sorted((a for a in ready if summary.weights[a.name] == a.weights_digest), key=lambda a: -gains[a.name])

    def parents(self) -> list[Parent]:
        """The adapters to merge: those that were named, or else the best, and the best that go with it, that were not
        merged themselves.

        Raises:
            InputError: one was not measured or cannot be merged, they do not go together, or they are fewer than two.
        """
        if self.search.adapters:
            return read_parents([self._named(name) for name in self.search.adapters], self.registry.weights)
        together: list[Adapter] = []
        reason: InputError | None = None
        made = {name for name, note in self.profiled.summary.training.items() if note.composite is not None}
        for adapter in (a for a in self.measured() if a.name not in made):
            try:
                check_alone(adapter)
                if together:
                    _ = read_parents([*together[:1], adapter], self.registry.weights)
                together.append(adapter)
            except InputError as exc:
                reason = reason or exc
            if len(together) == PARENTS:
                break
        if len(together) < 2 and reason is not None:
            raise reason
        return read_parents(together, self.registry.weights)

    def singles(self) -> list[Adapter]:
        """The adapters that a composite has to beat: the best by the profile, and all that are merged."""
        best = {a.name: a for a in self.measured()[:PARENTS]}
        return list((best | {p.adapter.name: p.adapter for p in self.parents()}).values())

    def known_gains(self) -> dict[str, Array]:
        """What the profile knows of the gains of `singles` on the choosing half, (n,) each, without asking any model.

        Of an adapter that was measured in part it is one estimate for all examples.
        """
        summary, gains = self.profiled.summary, {}
        for name in (adapter.name for adapter in self.singles()):
            parts = []
            for task, places in zip(self.halves.tasks, self.halves.choose, strict=True):
                gain = np.full(len(places), summary.gains[summary.adapters.index(name), summary.tasks.index(task.name)])
                if name in self.profiled.whole:
                    ours, base = (task.scores(self.profiled.outcomes(each, task)) for each in (name, None))
                    gain = (ours - base)[places]
                parts.append(gain)
            gains[name] = np.concatenate(parts)
        return gains

    def propose(self, gains: Mapping[str, Array]) -> list[Recipe]:
        """The recipes to try, by the parents' gains on each example of the choosing half, (n,): see `recipes_of`.

        Raises:
            InputError: a method was named that cannot merge them.
        """
        return recipes_of(self.parents(), gains, self.search, self.most_rank)

    def _named(self, name: str) -> Adapter:
        adapter = self.registry.adapter(name)
        if adapter.name not in {a.name for a in self.measured()}:
            raise InputError(
                f"adapter {name} is {adapter.state}, or other weights of it were measured, and only what is measured "
                f"and ready is merged: traitroute adapters measure {name}"
            )
        return adapter

    @property
    def most_rank(self) -> int:
        """The highest rank that a composite may have."""
        return self.search.most_rank or max(adapter.rank for adapter in self.measured())


def recipes_of(parents: Sequence[Parent], gains: Mapping[str, Array], search: Search, most_rank: int) -> list[Recipe]:
    """The recipes to try, of a rank of at most `most_rank`, by the parents' gains on the examples chosen by, (n,).

    The combinations come in the order of what the best of their parents gains on each example, and each further method
    comes a turn later, so that the first combinations are tried in the most ways.

    Raises:
        InputError: a method was named that cannot merge them.
    """
    sets = [each for size in (2, 3) for each in combinations(parents, size)]
    sets.sort(key=lambda of: -float(np.max([gains[p.adapter.name] for p in of], axis=0).mean()))
    methods = search.methods or USUAL
    turns = sorted((i + j, i, j) for i in range(len(sets)) for j in range(len(methods)))
    recipes: dict[Recipe, None] = {}
    for _, i, j in turns:
        try:
            recipes[_recipe(sets[i], methods[j], gains, search, most_rank)] = None
        except InputError:
            # Of the usual methods those are taken that can merge them.
            if search.methods:
                raise
    return list(recipes)[: search.candidates]


def _recipe(
    parents: Sequence[Parent], method: str, gains: Mapping[str, Array], search: Search, most_rank: int
) -> Recipe:
    if method == "svd" and sum(p.files.rank for p in parents) <= most_rank:
        method = "cat"
    own = np.array([gains[p.adapter.name].mean() for p in parents])
    shares = np.maximum(own, LEAST_WEIGHT * own.max()) if own.max() > 0 else np.ones(len(own))
    return Recipe(
        parents=tuple(p.adapter.name for p in parents),
        digests=tuple(p.files.digest for p in parents),
        weights=tuple(np.round(shares / shares.sum(), 4).tolist()),
        method=method,
        rank=merged_rank(method, parents, most=most_rank),
        density=None if method in (*SUMS, "linear") else search.density,
        seed=search.seed if method.startswith("dare") else 0,
    )
