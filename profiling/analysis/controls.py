"""Controls and ablations: how much of an apparent gain needs the source's input-output link at all.

An adapter that learned only to stop, or only the format of answers, can imitate transfer. Such a control
is trained from the same source with its link severed, so what it gains over the base model is gain that
the content of the source does not explain; what the adapter gains beyond it may be transfer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...adapters import InputError, Outcomes
from ..statistics.significance import (
    BOUNDS,
    Array,
    GainTests,
    Interval,
    Score,
    answer_bounds,
    bootstrap_means,
    compare,
    example_scores,
    paired,
    sign_flip_p,
)


@dataclass(frozen=True)
class Explained:
    """What a control leaves of an adapter's gain; every mean is a difference per example.

    `gain` and `control_gain` are over the base model, `beyond_control` is adapter less control; its p is
    McNemar's exact test for right-or-wrong scores. `share` is control_gain / gain with 95% bootstrap
    bounds; NaN where the interval of `gain` holds 0, since a share of nothing means nothing. Below 0
    the control went the other way; above 1 it did better than the adapter.
    """

    gain: Interval
    control_gain: Interval
    beyond_control: Interval
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class ExplainedRows:
    """One `Explained` a task, and one over all of them in which every task weighs the same."""

    tasks: tuple[str, ...]
    rows: tuple[Explained, ...]
    pooled: Explained


def explained_rows(
    outcomes: Mapping[tuple[str | None, str], Outcomes],
    adapter: str,
    control: str,
    tasks: Sequence[str],
    *,
    score: Score = "strict",
    n_resamples: int = 2000,
    seed: int = 0,
) -> ExplainedRows:
    """Set `adapter` beside `control` on each of `tasks` that all three were measured on, and on all.

    The pooled interval is over examples within tasks: it speaks of these tasks, not of others. Gains and side effects cancel in it. Tasks chosen because the adapter gained there, on these
    same examples, have a gain that is too high and a share that is too low.

    Raises:
        InputError: no task was measured with base, adapter and control, or their examples differ.
    """
    members = (None, adapter, control)
    shared = [task for task in tasks if all((m, task) in outcomes for m in members)]
    if not shared:
        raise InputError(f"no task was measured with the base model, {adapter} and {control}; measure all three")
    columns = [_columns(*(example_scores(outcomes[m, t], score) for m in members)) for t in shared]
    answers = score != "likelihood"
    rows = tuple(_pooled([c], n_resamples, seed, answers=answers) for c in columns)
    return ExplainedRows(tuple(shared), rows, _pooled(columns, n_resamples, seed, answers=answers))


def ablation_effects(
    outcomes: Mapping[tuple[str | None, str], Outcomes],
    variants: Mapping[str, str],
    tasks: Sequence[str],
    *,
    score: Score = "strict",
    q: float = 0.05,
    n_resamples: int = 2000,
    seed: int = 0,
) -> GainTests:
    """Test each variant against the original it was made from, on every task, as one family.

    `variants` maps the adapter of an ablated source (mislabelled, balanced, short, long) to the adapter
    of the source as it was. A "gain" is a variant better than its original, a "side effect" one worse.

    Raises:
        InputError: two cells of a task hold different numbers of examples, or a score is not finite.
    """
    pairs = {variant: (variant, original) for variant, original in variants.items()}
    return compare(outcomes, pairs, tasks, score=score, q=q, n_resamples=n_resamples, seed=seed)


def _columns(base: ArrayLike, adapter: ArrayLike, control: ArrayLike) -> Array:
    """Gain, control's gain and what is beyond it, example by example: (n, 3)."""
    b, a, c = (np.asarray(x, dtype=float) for x in (base, adapter, control))
    return np.stack([paired(a, b), paired(c, b), paired(a, c)], axis=1)


def _pooled(tasks: Sequence[Array], n_resamples: int, seed: int, *, answers: bool) -> Explained:
    """Means over `tasks` of their columns (n, 3), resampled within tasks; `answers` are right or wrong."""
    rng = np.random.default_rng(seed)
    drawn = np.mean([bootstrap_means(c, n_resamples, rng) for c in tasks], axis=0)
    # Weighted so that the mean over all examples is the mean over tasks of their means.
    total = sum(map(len, tasks))
    examples = np.concatenate([c * (total / (len(tasks) * len(c))) for c in tasks])
    means = examples.mean(axis=0)
    low, high = _answer_bounds(tasks) if answers else np.percentile(drawn, BOUNDS, axis=0)
    p = sign_flip_p(examples, n_resamples, rng)
    gain, control_gain, beyond = (Interval(*map(float, row)) for row in np.stack([means, low, high, p], axis=1))
    share = _share(gain, control_gain, drawn)
    return Explained(gain, control_gain, beyond, *share)


def _answer_bounds(tasks: Sequence[Array]) -> tuple[Array, Array]:
    """95% bounds (3,) of the mean over tasks, from each task's own: Zou and Donner's (2008) for independent estimates."""
    ends = np.array([answer_bounds(columns) for columns in tasks])
    means = np.array([columns.mean(axis=0) for columns in tasks])
    reach = np.sqrt(np.sum((ends - means[:, None]) ** 2, axis=0)) / len(tasks)
    return means.mean(axis=0) - reach[0], means.mean(axis=0) + reach[1]


def _share(gain: Interval, control_gain: Interval, drawn: Array) -> tuple[float, float, float]:
    """Share of the gain and its bounds, from resampled means (B, 3)."""
    if gain.low <= 0 <= gain.high:
        return np.nan, np.nan, np.nan
    kept = drawn[drawn[:, 0] != 0]
    low, high = np.percentile(kept[:, 1] / kept[:, 0], BOUNDS)
    return control_gain.mean / gain.mean, float(low), float(high)
