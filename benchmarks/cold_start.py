"""What an adapter's weights tell of its row of gains before it is measured: each adapter left out in turn.

    python benchmarks/cold_start.py --work runs/measure

The work folder is that of `outcomes.py`, which has trained there what the table lacked: adapters without weights in it
are left out of everything. A row may have been measured with an adapter that another machine trained, on the same rows
by the same recipe.

Rows are predicted from those of the other adapters, on the requests that the protocol `new_adapter` fits on, and are
held against the mean row of the others: by squared error, as a share of that row's; by `p`, the share of shufflings of
the likeness over the adapters that do as well; by correlation over tasks, of the rows and of their departures from the
mean row. Then a router that is told the predicted row chooses for new items. Intervals are over adapters.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from cold_start.rows import correlations, mixed, nearest, predicted, ratio, squared_error
from cold_start.weights import likenesses, read_updates
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from routing.ours import OurRouter, rows_of
from routing.protocols import Fold
from routing.scores import cross_fitted_best
from routing.seen import Seen, known_scores, see
from routing.table import SMOLLM2, OutcomeTable, chosen
from routing.trials import design_table, fold_list, scores_of
from traitroute.profiling.matrix.anchors import WORTH
from traitroute.router import Router, RoutingProfile

Array = NDArray[np.float64]
Row = Callable[["Known"], Array]
ROUTED = ("strict", "lenient")
SCORES = (*ROUTED, "likelihood")
MEAN, MEASURED, ABSENT, WEIGHTS, TRAINING = "mean row", "(its own row)", "(left out)", "weights", "training rows"
BELIEF = "router's belief"
PLAIN = (MEAN, TRAINING, BELIEF)
"""What is there without weights."""
TOGETHER = tuple(f"{name} + {WEIGHTS}" for name in (TRAINING, BELIEF))
EXAMPLES = 3
console = Console(width=140)


@dataclass(frozen=True)
class Known:
    """What is known when adapter `new` is left out: `gains` (a, tasks) of all on the requests fitted on.

    `truth` (tasks,) is its own row on all requests, `base` (tasks,) the base model's, and `tried` (EXAMPLES, tasks) its
    scores on some requests. `belief` (tasks,) is what the router predicts of it by its training rows alone.
    """

    new: int
    fold: Fold
    gains: Array
    truth: Array
    base: Array
    tried: Array
    profile: RoutingProfile | None
    belief: Array | None


def known(table: OutcomeTable, score: str, first: Seen, fold: Fold) -> Known:
    """Fit the product's router to the other adapters, where it reads this score; `first` is seen in the fold."""
    new = fold.new or 0
    scores = scores_of(table, score)
    task = table.task[fold.fit]
    rows, everything = _by_task(scores[fold.fit], task), _by_task(scores, table.task)
    drawn = np.random.default_rng(new).permutation(fold.fit)
    tried = np.array([scores[drawn[table.task[drawn] == t][:EXAMPLES], 1 + new] for t in np.unique(task)]).T
    profile = belief = None
    if score in ROUTED:
        fitted = OurRouter().fit(replace(first, scores=known_scores(table, scores, fold), memo={})).router.profile
        others = fitted.take([i for i, name in enumerate(fitted.adapters) if name != table.adapters[new]])
        profile = others.with_adapter(table.adapters[new], np.zeros(others.trait_scores.shape[1]), rows_of(table, new))
        gains = profile.predict_many(table.marks[fold.fit].tolist()).gains[:, -1]
        belief = _by_task(gains[:, None], task)[:, 0]
    gains = (rows[:, 1:] - rows[:, :1]).T
    own = everything[:, 1 + new] - everything[:, 0]
    return Known(new, fold, gains, own, everything[:, 0], tried, profile, belief)


def _by_task(values: Array, task: NDArray[np.int16]) -> Array:
    return np.array([values[task == t].mean(axis=0) for t in np.unique(task)])


def mean_row(at: Known) -> Array:
    """The mean row of the others."""
    return np.delete(at.gains, at.new, axis=0).mean(axis=0)


def from_kernel(kernel: Array, at: Known) -> Array:
    """By the likeness of adapters, (a, a)."""
    return predicted(kernel, at.gains, at.new)


def from_nearest(kernel: Array, at: Known) -> Array:
    """The row of the most similar adapter."""
    return nearest(kernel, at.gains, at.new)


def from_belief(at: Known) -> Array:
    """What the router believes by the training rows alone."""
    assert at.belief is not None
    return at.belief


def after(examples: int, prior: Row, at: Known) -> Array:
    """The row once so many examples of each task are measured, what is expected counting as in `anchors.py`."""
    total = WORTH * (at.base + prior(at)) + at.tried[:examples].sum(axis=0)
    return total / (WORTH + examples) - at.base


def moved(row: Row, by: Row, at: Known) -> Array:
    """A row, and by how much another departs from the mean row."""
    return row(at) + by(at) - mean_row(at)


def training_kernel(table: OutcomeTable) -> Array:
    """Likeness of training prompts by meaning (MiniLM), and of answers by words, (a, a)."""
    prompts, answers = [], []
    words = table.source_answers
    for i in range(len(table.adapters)):
        of = table.source_adapter == i
        prompts.append(table.source_sentence[of].astype(np.float64).mean(axis=0))
        answers.append(np.asarray(words[np.flatnonzero(of)].sum(axis=0)).ravel() ** 0.5)
    return mixed([_cosines(np.array(each)) for each in (prompts, answers)])


def _cosines(vectors: Array) -> Array:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def kernels_of(table: OutcomeTable, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The likenesses that rows are predicted by, (a, a) each."""
    together, training = mixed(list(weights.values())), training_kernel(table)
    found = {f"  {name}": kernel for name, kernel in weights.items()}
    return found | {WEIGHTS: together, TRAINING: training, TOGETHER[0]: mixed([training, together])}


def ways(kernels: Mapping[str, Array], *, believed: bool) -> dict[str, Row]:
    """Every way of predicting a row; the router's belief is there where it reads the score."""
    found: dict[str, Row] = {MEAN: mean_row}
    found |= {name: partial(from_kernel, kernel) for name, kernel in kernels.items()}
    for name in (WEIGHTS, TRAINING):
        found[f"nearest by {name}"] = partial(from_nearest, kernels[name])
    if believed:
        found[BELIEF] = from_belief
        found[TOGETHER[1]] = partial(moved, from_belief, found[WEIGHTS])
    for examples in (1, EXAMPLES):
        for name in (MEAN, WEIGHTS):
            found[f"{examples} measured a task, {name}"] = partial(after, examples, found[name])
    return found


def shuffled_p(kernel: Array, cases: Sequence[Known], count: int) -> float:
    """The share of shufflings of adapters' weights by which rows are predicted as well."""
    truth = np.array([at.truth for at in cases])

    def error(order: NDArray[np.intp]) -> float:
        moved = kernel[np.ix_(order, order)]
        return float(squared_error(np.array([from_kernel(moved, at) for at in cases]), truth).sum())

    found, rng = error(np.arange(len(kernel))), np.random.default_rng(0)
    drawn = [error(rng.permutation(len(kernel))) for _ in range(count)]
    return (1 + sum(each <= found + 1e-12 for each in drawn)) / (1 + count)


@dataclass(frozen=True)
class Routed:
    """By adapter, what a router scored and the best adapter of each data set does, sums over data sets, (a,)."""

    achieved: Array
    best: Array


def routed(table: OutcomeTable, score: str, cases: Sequence[Known], rows: Sequence[Array | None] | None) -> Routed:
    """Route the requests tested on, with the new adapter known by a row (None: by its training rows alone); with no
    rows at all it is not there.
    """
    scores = scores_of(table, score)
    achieved, best = [], []
    for i, at in enumerate(cases):
        assert at.profile is not None
        name, profile = table.adapters[at.new], at.profile
        if rows is None:
            profile = profile.take(range(len(profile.adapters) - 1))
        elif (row := rows[i]) is not None:
            # A kind of request is a data set in one wording: "arc_easy/1".
            gains = dict(zip(_tasks(table), row, strict=True))
            of_kinds = np.array([gains[kind.split("/")[0]] for kind in profile.tasks])
            supply = np.zeros(profile.trait_scores.shape[1])
            profile = profile.with_adapter(name, supply, rows_of(table, at.new), gains=of_kinds)
        test = at.fold.test
        columns = _choices(Router(profile), table.marks[test], table.adapters)
        got, task = scores[test][np.arange(len(test)), columns], table.task[test]
        achieved.append(sum(got[task == t].mean() for t in np.unique(task)))
        best.append(sum(cross_fitted_best(scores[test][task == t]) for t in np.unique(task)))
    return Routed(np.array(achieved), np.array(best))


def _choices(router: Router, marks: NDArray[np.object_], adapters: Sequence[str]) -> NDArray[np.intp]:
    made = [router.route(m).adapter for m in marks]
    return np.array([0 if name is None else 1 + adapters.index(name) for name in made], dtype=np.intp)


def _tasks(table: OutcomeTable) -> list[str]:
    return [table.tasks[t] for t in np.unique(table.task)]


def with_weights(table: OutcomeTable, work: Path) -> OutcomeTable:
    """The main requests, and the adapters whose weights are in the work folder."""
    kept = [
        i for i, name in enumerate(table.adapters) if (work / "runs" / name / "adapter_model.safetensors").is_file()
    ]
    if len(kept) < 4:
        raise SystemExit(
            f"{work} holds the weights of {len(kept)} adapters of the table; wanted at least 4: run outcomes.py"
        )
    return table.of_adapters(np.array(kept)).of_requests(np.flatnonzero(table.kind == "main"))


def show(
    table: OutcomeTable,
    score: str,
    cases: Sequence[Known],
    rows: Mapping[str, Row],
    kernels: Mapping[str, Array],
    shufflings: int,
) -> None:
    """Predict every row in every way, and print how good they are."""
    truth = np.array([at.truth for at in cases])
    found = {name: np.array([way(at) for at in cases]) for name, way in rows.items()}
    errors = {name: squared_error(each, truth) for name, each in found.items()}
    unsure = noise(table, score) / errors[MEAN].sum()
    console.print(
        f"\n{score}: {len(truth)} adapters, {truth.shape[1]} data sets; the true rows are uncertain by {unsure:.0%} of "
        "the mean row's error",
        highlight=False,
    )
    out = Table("row", "error of the mean row's", "p", "correlation", "of the departure")
    for name, each in found.items():
        pairs = (each, truth), (each - found[MEAN], truth - found[MEAN])
        about = [ratio(errors[name], errors[MEAN]), *(ratio(correlations(*p), np.ones(len(truth))) for p in pairs)]
        p = f"{shuffled_p(kernels[name], cases, shufflings):.3f}" if name in kernels else ""
        out.add_row(name, escape(f"{about[0]:.2f}"), p, *(escape(f"{f:.2f}") for f in about[1:]))
    console.print(out)
    for name in (n for n in (WEIGHTS, *TOGETHER) if n in found):
        for other in (n for n in PLAIN if n in found and n != name):
            console.print(
                f"error of {name!r} less that of {other!r}: {ratio(errors[name] - errors[other], errors[MEAN]):.2f}",
                highlight=False,
                markup=False,
            )


def show_routed(table: OutcomeTable, score: str, cases: Sequence[Known], rows: Mapping[str, Row]) -> None:
    """Route with some ways of knowing the new adapter, and print how well; its training rows are known in all."""
    told: dict[str, Sequence[Array | None] | None] = {ABSENT: None}
    for name in (MEAN, WEIGHTS, TOGETHER[1], f"{EXAMPLES} measured a task, {MEAN}"):
        told[name] = [np.clip(rows[name](at), -at.base, 1 - at.base) for at in cases]
    told |= {BELIEF: [None] * len(cases), MEASURED: [at.gains[at.new] for at in cases]}
    found = {name: routed(table, score, cases, each) for name, each in told.items()}
    out = Table("new adapter known by", "of best, %", "more than left out", "more than by the belief")
    for name, each in found.items():
        more = (ratio(100 * (each.achieved - found[other].achieved), each.best) for other in (ABSENT, BELIEF))
        out.add_row(name, *(escape(f"{f:.2f}") for f in (ratio(100 * each.achieved, each.best), *more)))
    console.print(out)


def noise(table: OutcomeTable, score: str) -> float:
    """The variance of the true gains, by their spread over requests; summed over adapters and tasks."""
    scores = scores_of(table, score)
    gains = scores[:, 1:] - scores[:, :1]
    of = [gains[table.task == t] for t in np.unique(table.task)]
    return float(sum((g.var(axis=0, ddof=1) / len(g)).sum() for g in of))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="the table of outcomes.py")
    parser.add_argument("--work", type=Path, required=True, help="the work folder of outcomes.py, with the weights")
    parser.add_argument("--scores", default=",".join(SCORES))
    parser.add_argument("--shufflings", type=int, default=999)
    parser.add_argument("--unrouted", action="store_true", help="rows only; no request is routed")
    return parser.parse_args()


def main() -> None:
    """Read the weights, predict every row from the others, print how good that is."""
    given = arguments()
    table = with_weights(design_table(given.outcomes), given.work)
    updates = read_updates([given.work / "runs" / name for name in table.adapters])
    kernels = kernels_of(table, likenesses(updates))
    console.print(f"adapters: {', '.join(table.adapters)}; {len(updates)} modules", highlight=False)
    # What does not depend on scores is computed once for all of them.
    folds = [(see(table, scores_of(table, SCORES[0]), fold)[0], fold) for fold in fold_list(table, "new_adapter")]
    for score in chosen(given.scores, dict.fromkeys(SCORES), "score"):
        cases = [known(table, score, *each) for each in folds]
        rows = ways(kernels, believed=score in ROUTED)
        show(table, score, cases, rows, kernels, given.shufflings)
        if score in ROUTED and not given.unrouted:
            show_routed(table, score, cases, rows)


if __name__ == "__main__":
    main()
