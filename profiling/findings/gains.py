"""Gains over the base model by every score, and the shares of examples that stand behind them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...adapters import Outcomes
from ..statistics.significance import GainTests, compare_with_base, wilson
from ..study import Study
from ..tasks.scoring import Score

Array = NDArray[np.float64]

SCORES: tuple[Score, ...] = ("strict", "lenient", "likelihood")

_SHARES: Mapping[str, Callable[[Outcomes], NDArray]] = {
    "strict": lambda o: o.strict,
    "lenient": lambda o: o.lenient,
    "unparsed": lambda o: o.parse_failure,
    "cut": lambda o: o.finish_reason == 1,
}


@dataclass(frozen=True)
class Shares:
    """Shares of examples in [0, 1] with 95% Wilson bounds, (1 + adapters, tasks): row 0 is the base model."""

    share: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class GainFindings:
    """`tests` of gains by score; `shares` of "strict", "lenient", "unparsed" answers and of those "cut"
    at the token limit; `examples` (tasks,) are counts.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    examples: NDArray[np.int64]
    tests: Mapping[Score, GainTests]
    shares: Mapping[str, Shares]


def find_gains(study: Study, *, q: float = 0.05, n_resamples: int = 2000, seed: int = 0) -> GainFindings:
    """Test every gain by strict, lenient and likelihood scores, each score a family of its own."""
    tasks = tuple(study.tasks)
    tests: Mapping[Score, GainTests] = {
        score: compare_with_base(
            study.outcomes,
            study.adapters,
            tasks,
            score=score,
            q=q,
            n_resamples=n_resamples,
            seed=seed,
        )
        for score in SCORES
    }
    return GainFindings(
        adapters=study.adapters,
        tasks=tasks,
        examples=tests["strict"].examples,
        tests=tests,
        shares={name: _shares(study, of) for name, of in _SHARES.items()},
    )


def _shares(study: Study, of: Callable[[Outcomes], NDArray]) -> Shares:
    rows = [[study.outcomes[name, task] for task in study.tasks] for name in (None, *study.adapters)]
    hits = np.array([[int(np.sum(of(cell))) for cell in row] for row in rows])
    n = np.array([[len(cell) for cell in row] for row in rows])
    low, high = wilson(hits, n)
    return Shares(hits / n, low, high)
