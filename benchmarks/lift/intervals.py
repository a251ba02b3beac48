"""Intervals for the mean of a sequence of values, read at several looks: ours and those it is compared with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from traitroute.serving.lift.sequence import Values

Array = NDArray[np.float64]
Looks = NDArray[np.intp]

ALPHA = 0.05
GRID = np.linspace(-1, 1, 401)
"""Means at which betting is tried."""


@dataclass(frozen=True)
class Bounds:
    """The lower and the upper bound at each look, (looks,) each."""

    low: Array
    high: Array


def ours(v: Values, looks: Looks) -> Bounds:
    """The product's confidence sequence."""
    sums = v.sums(looks)
    return Bounds(np.maximum(sums.low(ALPHA / 2), -1), np.minimum(sums.high(ALPHA / 2), 1))


def usual(v: Values, looks: Looks) -> Bounds:
    """The interval of the normal approximation, as if each look were the only one."""
    mean, spread = _moments(v, looks)
    return _around(mean, norm.isf(ALPHA / 2) * spread / np.sqrt(looks))


def asymptotic(v: Values, looks: Looks) -> Bounds:
    """The asymptotic confidence sequence, tuned to be narrowest at 1,000 conversations."""
    mean, spread = _moments(v, looks)
    best, n = 1000.0, looks
    rho = np.sqrt((-2 * np.log(ALPHA) + np.log(-2 * np.log(ALPHA) + 1)) / best)
    inside = n * rho**2 + 1
    return _around(mean, spread * np.sqrt(2 * inside / (n * rho) ** 2 * np.log(np.sqrt(inside) / ALPHA)))


def plug_in(v: Values, looks: Looks) -> Bounds:
    """The empirical Bernstein sequence with predictable bets, of values brought into [0, 1]."""
    scaled, n = _unit(v), np.arange(1, len(v.values) + 1)
    mean, variance = _running(scaled)
    before = np.r_[0.25, variance[:-1]]
    bets = np.minimum(np.sqrt(2 * np.log(2 / ALPHA) / (before * n * np.log1p(n))), 0.5)
    squares = (scaled - np.r_[0.5, mean[:-1]]) ** 2
    weight = bets.cumsum()
    margin = (np.log(2 / ALPHA) + (squares * (-np.log1p(-bets) - bets)).cumsum()) / weight
    at, back = looks - 1, _span(v)
    center = (bets * scaled).cumsum() / weight
    return _around((center[at] * back) + _least(v), margin[at] * back)


def _betting_wealth(v: Values, looks: Looks, means: Array) -> Array:
    """The logarithm of hedged betting's wealth against each of `means` (m,) at each look, (looks, m)."""
    scaled, tried = _unit(v), (means - _least(v)) / _span(v)
    _, variance = _running(scaled)
    n = np.arange(1, len(scaled) + 1)
    bets = np.sqrt(2 * np.log(2 / ALPHA) / (np.r_[0.25, variance[:-1]] * n * np.log1p(n)))
    at = looks - 1
    wealth = np.empty((len(at), len(means)))
    for j, m in enumerate(tried):
        above = np.log1p(np.minimum(bets, 0.5 / max(m, 1e-9)) * (scaled - m)).cumsum()
        below = np.log1p(-np.minimum(bets, 0.5 / max(1 - m, 1e-9)) * (scaled - m)).cumsum()
        wealth[:, j] = np.maximum(above, below)[at] - np.log(2)
    return wealth


def betting(v: Values, looks: Looks) -> Bounds:
    """The means that hedged betting leaves at each look, on a grid."""
    left = _betting_wealth(v, looks, GRID) < np.log(1 / ALPHA)
    low = np.where(left.any(axis=1), GRID[left.argmax(axis=1)], np.nan)
    high = np.where(left.any(axis=1), GRID[::-1][left[:, ::-1].argmax(axis=1)], np.nan)
    return Bounds(low, high)


def _around(mean: Array, margin: Array) -> Bounds:
    return Bounds(np.maximum(mean - margin, -1), np.minimum(mean + margin, 1))


def _moments(v: Values, looks: Looks) -> tuple[Array, Array]:
    """Mean and standard deviation at each look."""
    mean, variance = _running(v.values, prior=0)
    return mean[looks - 1], np.sqrt(np.maximum(variance[looks - 1], 1e-12))


def _running(values: Array, prior: int = 1) -> tuple[Array, Array]:
    """Mean and variance after each value, as if `prior` values of mean and variance 1/2 and 1/4 had come before."""
    n = np.arange(1, len(values) + 1) + prior
    mean = (prior / 2 + values.cumsum()) / n
    squares = (prior / 2 + (values**2).cumsum()) / n
    return mean, np.maximum(squares - mean**2, 1e-6 if prior else 0.0)


def _least(v: Values) -> float:
    return -v.reach - 1


def _span(v: Values) -> float:
    return 2 * (v.reach + 1)


def _unit(v: Values) -> Array:
    return (v.values - _least(v)) / _span(v)
