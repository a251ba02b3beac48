"""How cautious the router must be, so that it harms no more than a stated share of the tasks it does not know.

The caution is how many standard errors a predicted gain must exceed zero by. It is the least for which tasks left out
of the fit, and one more that is counted as harmed, keep the risk: conformal risk control (arXiv 2208.02814). Fewer
than 1 / risk - 1 tasks, nineteen at 5%, cannot show that, whatever they do; there none may be harmed, and
the caution is at least FEW_TASKS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CAUTIONS = np.arange(0.0, 6.01, 0.25)
"""Standard errors tried."""

FEW_TASKS = 2.0
"""The least caution of a profile of too few tasks to calibrate it on."""


@dataclass(frozen=True)
class CautionPoint:
    """At a caution: the mean gain of routing over tasks, and how many of them it harms."""

    caution: float
    gain: float
    harmed: int


def caution_curve(
    predicted: Array, error: Array, gains: Array, tasks: NDArray[np.intp]
) -> list[CautionPoint]:
    """What routing by `predicted` (n, adapters) with standard errors `error` (n,) brings at each caution.

    `gains` (n, adapters) are those measured, `tasks` (n,) numbers from 0. A task is harmed where its mean gain lies more
    than 1.645 standard errors below zero, the one-sided 5% limit.
    """
    rows = np.arange(len(predicted))
    best = predicted.argmax(axis=1)
    lead, got = predicted[rows, best], gains[rows, best]
    sizes = np.bincount(tasks)
    points = []
    for caution in CAUTIONS:
        realised = np.where(lead > caution * error, got, 0.0)
        means = np.bincount(tasks, realised) / sizes
        spread = np.sqrt(np.maximum(np.bincount(tasks, realised**2) / sizes - means**2, 0.0))
        harmed = means + 1.645 * spread / np.sqrt(sizes) < 0
        points.append(CautionPoint(float(caution), float(means.mean()), int(harmed.sum())))
    return points


def least_caution(curve: Sequence[CautionPoint], tasks: int, risk: float) -> float:
    """The least caution from which on the risk is kept, judged by `tasks` tasks left out."""
    allowed = risk * (tasks + 1) - 1
    floor = 0.0 if allowed >= 0 else FEW_TASKS
    too_little = [p.caution for p in curve if p.harmed > max(allowed, 0.0)]
    above = [p.caution for p in curve if p.caution > max(too_little, default=-1.0)]
    return max(min(above, default=curve[-1].caution), floor)
