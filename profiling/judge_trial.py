"""How far a judge's verdicts on a kind of request can be believed: tried on tasks whose right answers are known.

A verdict is 1 where the judge prefers the adapter's answer to base's, -1 where it prefers base's, else between. Over
the answers of the trial it is modelled as

    verdict = offset + slope x gain + liking + noise

with the gain known of each answer. *Noise* is drawn anew for each answer. A *liking* belongs to one adapter on one
task: a judge that takes to how an adapter writes there says so of all its answers, and more of them do not make up for
it. Its variance is estimated by the method of moments, from how far the means of the trial's cells lie from the line
beyond what noise explains (DerSimonian and Laird, 1986), at the upper end of its one-sided 90% interval. On a kind
whose answers nobody knows, n verdicts on an adapter are then as sure as spread / n + liking, the spread being that of
noise and of gains together: never surer than a liking.

What verdicts say of gains is combined with what the profile predicts, each as far as it is sure. Verdicts that not even
the largest gain explains are of something else, and count for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from ..adapters import MetricError

Array = NDArray[np.float64]
LEAST_TASKS, LEAST_ADAPTERS = 6, 2
"""A trial on fewer tasks, or of fewer adapters on a task, says nothing of likings."""
LEAST_SLOPE = 0.1
IMPLAUSIBLE = 2.5
"""Standard errors beyond what the largest gain explains."""
FEW = 10
"""How verdicts differ on a kind is taken to be as in the trial, as if so many of its verdicts had been seen there."""
MOST_LIKING, SURE = 0.9, 0.8
"""One-sided confidence of the variance of likings, and of a gain that is admitted."""


@dataclass(frozen=True)
class TrialCell:
    """Verdicts (n,) on the answers of an adapter on a task, and its `gains` (n,) over base there, both in [-1, 1]."""

    adapter: str
    task: str
    verdicts: Array
    gains: Array


@dataclass(frozen=True)
class Judged:
    """What is believed of gains after the verdicts: `means` (a,) and `variances` (a,)."""

    means: Array
    variances: Array

    def lead(self, before: Array, after: Array) -> tuple[float, float]:
        """By how much it is better to choose each adapter for the shares `after` (a,) of the requests than for those
        `before`, base answering the rest; and the lower bound of that, one-sided."""
        moved = after - before
        lead, variance = float(moved @ self.means), float(moved**2 @ self.variances)
        return lead, lead - float(norm.ppf(SURE)) * variance**0.5


@dataclass(frozen=True)
class JudgeTrial:
    """What a judge's verdicts on known answers showed: `noise` and `liking` are variances, and so is `spread`, that of
    all verdicts on an adapter on a task; `slope_error` is a standard error."""

    offset: float
    slope: float
    slope_error: float
    noise: float
    spread: float
    liking: float
    tasks: int
    cells: int
    answers: int

    @classmethod
    def of(cls, cells: Sequence[TrialCell]) -> Self:
        """Fit the line and its variances.

        Raises:
            MetricError: the trial is too small for likings to show, or the judge does not tell right from wrong.
        """
        by_task = {cell.task: 0 for cell in cells}
        for cell in cells:
            by_task[cell.task] += 1
        told = sum(count >= LEAST_ADAPTERS for count in by_task.values())
        if told < LEAST_TASKS:
            raise MetricError(
                f"verdicts were tried on {told} tasks with {LEAST_ADAPTERS} adapters or more, and it takes "
                f"{LEAST_TASKS} to see whether they lean to what some adapters write: give more tasks"
            )
        verdicts, gains = (np.concatenate([getattr(cell, name) for cell in cells]) for name in ("verdicts", "gains"))
        which = np.repeat(np.arange(len(cells)), [len(cell.gains) for cell in cells])
        sizes = np.bincount(which).astype(np.float64)
        design = np.stack([np.ones_like(gains), gains], axis=1)
        # Answers of one cell share its liking: a first fit gives the variances by which a second one weighs cells.
        weights, liking, noise, rest = np.ones_like(gains), 0.0, 0.0, gains
        line, covariance = np.zeros(2), np.eye(2)
        for _ in range(3):
            gram = design.T @ (design * weights[:, None])
            if np.linalg.cond(gram) > 1e8:
                raise MetricError("the adapters of the trial gain nothing on its tasks, or all the same: give others")
            line = np.linalg.solve(gram, design.T @ (weights * verdicts))
            rest = verdicts - design @ line
            means = np.bincount(which, rest) / sizes
            noise = float(((rest - means[which]) ** 2).sum() / max(len(rest) - len(cells) - 1, 1))
            spread, freedom = float(sizes @ means**2), max(len(cells) - 2, 1)
            per_cell = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / max(len(cells) - 1, 1)
            liking = float(max(spread / chi2.ppf(1 - MOST_LIKING, freedom) - noise, 0.0) / per_cell)
            middling = max(spread / freedom - noise, 0.0) / per_cell
            variance = noise / sizes + middling
            weights = (1 / (sizes * np.maximum(variance, 1e-6)))[which]
            scores = np.array(
                [(design[which == i] * (weights * rest)[which == i, None]).sum(axis=0) for i in range(len(cells))]
            )
            inverse = np.linalg.inv(design.T @ (design * weights[:, None]))
            covariance = inverse @ (scores.T @ scores) @ inverse
        slope, error = float(line[1]), float(np.sqrt(covariance[1, 1]))
        if slope - norm.ppf(MOST_LIKING) * error < LEAST_SLOPE:
            raise MetricError(
                f"the verdicts do not tell right answers from wrong ones: they move by {slope:.2f} ± {error:.2f} from "
                "the one to the other, 1 being all; compare otherwise, or by another judge"
            )
        middles = (np.bincount(which, verdicts) / sizes)[which]
        spread = float(((verdicts - middles) ** 2).sum() / max(len(rest) - len(cells), 1))
        return cls(float(line[0]), slope, error, noise, spread, liking, len(by_task), len(cells), len(rest))

    def judged(self, verdicts: Sequence[Array], predicted: Array, error: float) -> Judged:
        """Mean gains (a,) on a kind of request, by `verdicts` on some answers of each adapter (n,) and by what was
        `predicted` (a,) with a standard `error`: the posterior of the model. Where there is no verdict, what was
        predicted."""
        counts = np.array([len(each) for each in verdicts], np.float64)
        means = np.array([each.mean() if len(each) else 0.0 for each in verdicts])
        squares = np.array([((each - mean) ** 2).sum() for each, mean in zip(verdicts, means, strict=True)])
        # The requests are a sample of the kind, so verdicts differ by what their answers gain too. Few that all agree
        # say little of how they differ.
        spread = (squares + FEW * self.spread) / (counts + FEW)
        variance = spread / np.maximum(counts, 1) + self.liking
        # No gain explains such verdicts, so they are of something else.
        beyond = np.abs(means - self.offset) - self.slope > IMPLAUSIBLE * np.sqrt(variance)
        variance = np.where((counts > 0) & ~beyond, variance, np.inf)
        prior = np.full(len(predicted), error**2)
        said = self.slope * prior
        share = said / (self.slope * said + (self.slope_error * predicted) ** 2 + variance)
        believed = predicted + share * (means - self.offset - self.slope * predicted)
        return Judged(believed, prior - share * said)
