"""Do the intervals of `traitroute lift` hold when somebody looks every hour, and how wide are they? Simulated months.

    python benchmarks/lift.py                       the tables, some minutes of one core
    python benchmarks/lift.py --json OUT            and the figures
    python benchmarks/lift.py --fill REGISTRY       a month of decisions and feedback for a registry that has a profile

A month is some thousand conversations, more by day than by night, of which a small share is held back. Each has one or
more rewards, alike more often than not, which come some time after the answer, as 0 or 1, or on a scale of their own.
The conversations pass through the product's own functions: they are joined, weighted and compared as `lift` does it.
Each interval is then read at every hour of the month. It covers where it never misses the gain over the conversations
so far: what the same requests would have got from auto, less what from base, on average.

The worlds differ in what could break an interval: base that is nearly always right, an adapter that decays, a small
control group, an outcome model that knows nothing. The first one's requests, and what adapter and base answer to them,
are the measured ones of `routing/outcomes.safetensors`, the profile fitted on other rows.

Beside ours: the usual interval of the same values (`usual`), read every hour and only once; the asymptotic confidence
sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024); hedged betting and its closed-form relative, the
predictable plug-in (Waudby-Smith and Ramdas, 2024), which are made for expectations that do not move.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from lift.filling import fill
from lift.worlds import DAY_S, WORLDS, Month, World, simulate
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from traitroute.serving.lift.sequence import Sums

Array = NDArray[np.float64]

ALPHA = 0.05
HOURS = np.arange(1, 30 * 24 + 1) * 3600.0
MONTHS, BETTING_MONTHS = 1000, 100
"""Betting is solved on a grid, which takes longer; its coverage is read at the truth, its width in so many months."""
GRID = np.linspace(-1, 1, 401)
console = Console(width=150)


@dataclass(frozen=True)
class Values:
    """One month's values and predictions (n,), their `reach`, and the `looks`: how many were known at each hour."""

    values: Array
    predictions: Array
    reach: float
    looks: NDArray[np.intp]
    truth: Array
    """The mean of expectations after each value, (n,)."""
