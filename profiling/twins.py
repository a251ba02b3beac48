"""Two bases: does what is measured on a small one say which adapter to take, or to train, on a larger one?

Both profiles are cut to the adapters of one name, the tasks of one name and rules, and the test rows that both
measured, so that every figure is of the same requests. The small base is A and the larger one B.

Ranking. Of two adapters that the larger base surely tells apart on a task, does the small base rank them alike? That is
DataDecide's measure (arXiv 2504.11393). Two that the small base cannot tell apart count half.

Routing. A router is fitted to each base with some requests held out: rows of tasks that it knows, or whole tasks, which
both routers then decide. What a router chooses is scored by what each base measured of that adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from ..adapters import InputError
from ..router import FitData, FitRequests, Router, TrainingRows, fit_profile
from ..router.folds import task_means
from ..router.request import Request
from .analysis.agreement import Permuted, permuted
from .matrix.profiled import training_rows
from .statistics.significance import BOUNDS, bootstrap_means, discoveries, sign_flip_p
from .study import Study
from .tasks.task import Task
from .traits.space import principal_components

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]
Way = Literal["known", "new"]
WAYS: Mapping[Way, str] = {"known": "other rows of tasks that were profiled", "new": "tasks that were not profiled"}
ROW_FOLDS, TASK_FOLDS = 3, 10
N_RESAMPLES = 2000
SMALL, LARGE = "A", "B"


@dataclass(frozen=True)
class Twins:
    """What two bases measured alike: n requests of some tasks, answered by base and a adapters on each.

    `small` and `large` (n, 1 + a) are scores, base first; `task` and `group` (n,) are numbers, the first of `tasks`.
    What is of one group is left out together. `sources` (a,) are training rows, where they are known. `other_rules` are
    tasks of both that are judged by other rules, and `other_training` adapters of both that were trained on other rows.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: Sequence[Request]
    task: Numbers
    group: Numbers
    small: Array
    large: Array
    sources: Sequence[TrainingRows | None]
    other_rules: tuple[str, ...] = ()
    other_training: tuple[str, ...] = ()

    @classmethod
    def of(cls, small: Study, large: Study) -> Self:
        """Line two studies up; a task is scored as the larger one's profile does.

        Raises:
            InputError: no two adapters, or no task, are common; or the data is not where it was.
        """
        adapters = tuple(name for name in large.adapters if name in small.adapters)
        shared = [name for name in large.tasks if name in small.tasks]
        alike = [name for name in shared if _rules(small.tasks[name]) == _rules(large.tasks[name])]
        rows = {name: found for name in alike if len((found := _common_rows(small, large, name))[0])}
        if len(adapters) < 2 or not rows:
            raise InputError(_too_little(small, large, adapters, shared, alike))
        texts = [large.tasks[name].test_examples[i].routed for name, (_, of) in rows.items() for i in of]
        datasets = [getattr(large.tasks[name].rows, "dataset", None) or name for name in rows]
        sizes = [len(of) for _, of in rows.values()]
        group = np.unique(datasets, return_inverse=True)[1]
        order = tuple(large.tasks.values())
        return cls(
            adapters=adapters,
            tasks=tuple(rows),
            texts=texts,
            task=np.repeat(np.arange(len(rows)), sizes),
            group=np.repeat(group, sizes),
            small=np.concatenate([_scores(small, large, n, adapters)[of] for n, (of, _) in rows.items()]),
            large=np.concatenate([_scores(large, large, n, adapters)[of] for n, (_, of) in rows.items()]),
            sources=[training_rows(order, name) for name in adapters],
            other_rules=tuple(name for name in shared if name not in alike),
            other_training=tuple(a for a in adapters if _trained_on(small, a) != _trained_on(large, a)),
        )

    @cached_property
    def sides(self) -> Mapping[str, Array]:
        """The scores by side."""
        return {SMALL: self.small, LARGE: self.large}

    def means(self, side: str) -> Array:
        """Mean scores of the adapters, (a, tasks)."""
        return task_means(self.sides[side][:, 1:], self.task).T


def _rules(task: Task) -> tuple[object, ...]:
    return task.metric.setting, task.labels, task.max_tokens


def _common_rows(small: Study, large: Study, name: str) -> tuple[list[int], list[int]]:
    """Places, on either side, of the test rows that both measured: what is too long for one base may be left out."""
    places = []
    for study in (small, large):
        examples = study.tasks[name].test_examples
        if len(examples) != len(study.outcomes[None, name]):
            raise InputError(
                f"the test rows of {name} are not those that were measured with {study.base_model}: put its data "
                "where it was, or profile again"
            )
        places.append({example.model_dump_json(): i for i, example in enumerate(examples)})
    first, second = places
    both = [row for row in second if row in first]
    return [first[row] for row in both], [second[row] for row in both]


def _scores(study: Study, judge: Study, task: str, adapters: Sequence[str]) -> Array:
    columns = [judge.tasks[task].scores(study.outcomes[name, task]) for name in (None, *adapters)]
    return np.stack(columns, axis=1)


def _trained_on(study: Study, adapter: str) -> list[str] | None:
    """The rows that an adapter was trained on; None where it is not known."""
    if adapter not in study.sources:
        return None
    return [example.model_dump_json() for example in study.training_set(adapter).examples]


def _too_little(
    small: Study, large: Study, adapters: Sequence[str], shared: Sequence[str], alike: Sequence[str]
) -> str:
    def names(of: Sequence[str]) -> str:
        return ", ".join(of) or "none"

    if len(adapters) < 2:
        return (
            f"the two profiles share {names(adapters)} of their adapters, and it takes two: train both from the same "
            f"sources (A has {names(small.adapters)}; B has {names(large.adapters)})"
        )
    if not shared:
        return (
            "the two profiles share no task by name: profile both on the same ones "
            f"(A has {names(tuple(small.tasks))}; B has {names(tuple(large.tasks))})"
        )
    if not alike:
        return (
            f"the tasks of both profiles ({names(shared)}) have other metrics, labels or token limits: make them alike"
        )
    return f"the tasks of both profiles ({names(alike)}) have no test row in common: profile both on the same data"


@dataclass(frozen=True)
class Ranking:
    """How the small base ranks pairs of adapters that the larger base tells apart on a task.

    `pairs` were compared and `shown` differ on the larger base, at a false-discovery rate of 5% over all. `alike` is
    the share of these that the small base ranks alike (None without any), of which `ties` it does not tell apart: they
    count half. Its bounds are a bootstrap's over tasks and adapters, its null a shuffle of the small base's adapters.
    `all_alike` is the share among all pairs whose means differ on the larger base, shown or not. `by_task` has the
    share and count of each task.
    """

    pairs: int
    shown: int
    alike: Permuted | None
    low: float
    high: float
    ties: float
    all_alike: float
    by_task: Mapping[str, tuple[float, int]]


def rank_pairs(twins: Twins, *, n_permutations: int = 9999, seed: int = 0) -> Ranking:
    """Ask how often the small base ranks two adapters as the larger does."""
    means, wanted = twins.means(SMALL), twins.means(LARGE)
    first, second = np.triu_indices(len(twins.adapters), k=1)
    lead = np.sign(np.round(wanted[first] - wanted[second], 12))
    shown = _told_apart(twins, first, second, seed) & (lead != 0)

    def alike(small: Array) -> Array:
        """1 where a pair is ranked alike on a task, 0 where not, and one half for a tie; (pairs, tasks)."""
        return (1 + lead * np.sign(np.round(small[first] - small[second], 12))) / 2

    found, count = alike(means), int(shown.sum())
    by_task = {t: (float(found[shown[:, j], j].mean()), int(shown[:, j].sum())) for j, t in enumerate(twins.tasks)
               if shown[:, j].any()}  # fmt: skip
    all_alike = float(found[lead != 0].mean()) if (lead != 0).any() else float("nan")
    if not count:
        return Ranking(lead.size, 0, None, float("nan"), float("nan"), 0.0, all_alike, by_task)
    test = permuted(lambda _, small: float(alike(small)[shown].mean()), wanted, means, "greater",
                    n_permutations=n_permutations, seed=seed)  # fmt: skip
    low, high = _over_tasks_and_adapters(found, shown, first, second, len(twins.adapters), seed)
    return Ranking(lead.size, count, test, low, high, float((found[shown] == 0.5).mean()), all_alike, by_task)


def _told_apart(twins: Twins, first: Numbers, second: Numbers, seed: int) -> NDArray[np.bool_]:
    """Whether the larger base's paired test tells two adapters apart on a task, (pairs, tasks)."""
    p = np.ones((len(first), len(twins.tasks)))
    flips = max(N_RESAMPLES, 40 * p.size)
    for j in range(len(twins.tasks)):
        scores = twins.large[twins.task == j, 1:]
        p[:, j] = sign_flip_p(scores[:, first] - scores[:, second], flips, np.random.default_rng([seed, j]))
    return discoveries(p)[1]


def _over_tasks_and_adapters(
    alike: Array, shown: NDArray[np.bool_], first: Numbers, second: Numbers, adapters: int, seed: int
) -> tuple[float, float]:
    """95% bounds of the share, tasks and adapters drawn with replacement; an adapter makes no pair with itself."""
    random = np.random.default_rng(seed)
    tasks = random.multinomial(shown.shape[1], np.full(shown.shape[1], 1 / shown.shape[1]), size=N_RESAMPLES)
    drawn = random.multinomial(adapters, np.full(adapters, 1 / adapters), size=N_RESAMPLES)
    pairs = drawn[:, first] * drawn[:, second]
    right, count = (
        np.sum((tasks @ part.T) * pairs, axis=1) for part in (np.where(shown, alike, 0), shown.astype(float))
    )
    low, high = np.percentile(right[count > 0] / count[count > 0], BOUNDS)
    return float(low), float(high)


@dataclass(frozen=True)
class Worth:
    """The mean score over tasks of what a choice makes of the requests, by one base's measurements.

    `less` is that score less what the base's own router reaches, with 95% bounds over tasks.
    """

    score: float
    less: float
    low: float
    high: float


@dataclass(frozen=True)
class Routing:
    """Decisions of both bases' routers on requests that were held out in one `way`.

    `equal` is the share of equal ones, `by_chance` what two routers with these shares of adapters would have, and
    `kappa` how far between chance and 1 it lies, with bounds over tasks. `worth` is by side and by whose choice it is.
    """

    way: Way
    equal: float
    by_chance: float
    kappa: float
    low: float
    high: float
    worth: Mapping[str, Mapping[str, Worth]]


def compare_routing(twins: Twins, way: Way, *, seed: int = 0) -> Routing:
    """Fit a router to each base, hold out rows or tasks, and compare what both decide there.

    Raises:
        InputError: there are too few tasks to hold some out.
    """
    folds = _folds(twins, way, seed)
    columns: dict[str, Numbers] = {name: np.zeros(len(folds), np.intp) for name in _CHOICES}
    for fold in range(int(folds.max()) + 1):
        asked, fitted = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        data: FitData | None = None
        for side, scores in twins.sides.items():
            columns[f"best single adapter of {side}"][asked] = 1 + _best_single(twins, scores, fitted)
            requests = _requests(twins, scores, fitted)
            data = data or FitData.of(requests)
            columns[f"router of {side}"][asked] = _choose(twins, requests, data, asked)
    first, second = (columns[f"router of {side}"] for side in twins.sides)
    kappa = _kappa(first, second)
    low, high = _kappa_bounds(twins, first, second, seed)
    shares = [np.bincount(column, minlength=1 + len(twins.adapters)) / len(column) for column in (first, second)]
    return Routing(
        way=way,
        equal=float((first == second).mean()),
        by_chance=float(shares[0] @ shares[1]),
        kappa=kappa,
        low=low,
        high=high,
        worth={side: _worth(twins, side, columns, seed) for side in twins.sides},
    )


_CHOICES = tuple(f"{what} of {side}" for what in ("best single adapter", "router") for side in (SMALL, LARGE))


def _folds(twins: Twins, way: Way, seed: int) -> Numbers:
    """The number of the fold in which each request is held out, (n,)."""
    random = np.random.default_rng(seed)
    if way == "new":
        count = int(twins.group.max()) + 1
        if count < 3:
            raise InputError(f"{count} groups of tasks are common, and to hold tasks out takes three")
        return (random.permutation(count) % min(TASK_FOLDS, count))[twins.group]
    places = np.zeros(len(twins.task), np.intp)
    for task in range(len(twins.tasks)):
        members = random.permutation(np.flatnonzero(twins.task == task))
        places[members] = np.arange(len(members)) % ROW_FOLDS
    return places


def _requests(twins: Twins, scores: Array, rows: Numbers) -> FitRequests:
    return FitRequests(
        texts=[twins.texts[i] for i in rows],
        tasks=[twins.tasks[i] for i in twins.task[rows]],
        gains=scores[rows, 1:] - scores[rows, :1],
        groups=[str(i) for i in twins.group[rows]],
        sources=twins.sources,
        base=scores[rows, 0],
    )


def _choose(twins: Twins, requests: FitRequests, data: FitData, asked: Numbers) -> Numbers:
    """What a router fitted to these requests chooses for the others `asked`: columns of the scores."""
    means = task_means(requests.gains, data.tasks).T
    scores = (means - means.mean(axis=0)) @ principal_components(means)[1].T
    profile = fit_profile(twins.adapters, requests, scores, n_traits=1, data=data)
    return 1 + Router(profile).choose([twins.texts[i] for i in asked]).chosen


def _best_single(twins: Twins, scores: Array, rows: Numbers) -> int:
    """The adapter of the highest mean score over the tasks of these rows."""
    numbers = np.unique(twins.task[rows], return_inverse=True)[1]
    return int(task_means(scores[rows, 1:], numbers).mean(axis=0).argmax())


def _worth(twins: Twins, side: str, columns: Mapping[str, Numbers], seed: int) -> dict[str, Worth]:
    scores, rows = twins.sides[side], np.arange(len(twins.task))
    by_request = {"base": scores[:, 0], "a random adapter": scores[:, 1:].mean(axis=1)}
    by_request |= {name: scores[rows, column] for name, column in columns.items()}
    best = task_means(scores, twins.task).argmax(axis=1)
    by_request["best of each task, in hindsight"] = scores[rows, best[twins.task]]
    means = task_means(np.stack(list(by_request.values()), axis=1), twins.task)
    less = means - means[:, [list(by_request).index(f"router of {side}")]]
    bounds = np.percentile(bootstrap_means(less, N_RESAMPLES, np.random.default_rng(seed)), BOUNDS, axis=0)
    parts = (means.mean(axis=0), less.mean(axis=0), *bounds)
    return {name: Worth(*(float(part[i]) for part in parts)) for i, name in enumerate(by_request)}


def _kappa(first: Numbers, second: Numbers) -> float:
    """Cohen's kappa; 1 where both choose one thing always, for then no other agreement can be had."""
    if len(np.unique(np.concatenate([first, second]))) == 1:
        return 1.0
    return float(cohen_kappa_score(first, second))


def _kappa_bounds(twins: Twins, first: Numbers, second: Numbers, seed: int) -> tuple[float, float]:
    random, members = np.random.default_rng(seed), [np.flatnonzero(twins.task == t) for t in range(len(twins.tasks))]
    drawn = []
    for _ in range(N_RESAMPLES // 4):
        rows = np.concatenate([members[t] for t in random.integers(len(members), size=len(members))])
        drawn.append(_kappa(first[rows], second[rows]))
    low, high = np.percentile(drawn, BOUNDS)
    return float(low), float(high)
