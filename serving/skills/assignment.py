"""Which skill each step of a plan gets: as few changes as a stated loss of predicted gain allows.

An exact dynamic programme over (changes so far, skill of the last step): of all assignments within the loss it finds
one with the fewest changes, and of those with as few the one of least loss. A change is any change of who answers,
to and from the base model included, since each loses the prefix cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Assignment:
    """The skill of each step, the number of changes between them, and the gain given up in all."""

    skills: tuple[str, ...]
    switches: int
    loss: float


def assign(losses: Sequence[Mapping[str, float]], max_loss: float) -> Assignment:
    """Assign to each step one of the skills in its `losses`, which has at least one of loss 0."""
    skills = list(dict.fromkeys(skill for step in losses for skill in step))
    costs = np.array([[step.get(skill, np.inf) for skill in skills] for step in losses])
    layers = [np.cumsum(costs, axis=0)]
    # Sums of floats may exceed by a rounding error what they were meant to equal.
    while layers[-1][-1].min() > max_loss + 1e-9 and len(layers) < len(losses):
        layers.append(_with_one_more(layers[-1], costs))
    names = tuple(skills[i] for i in _path(layers))
    return Assignment(names, switches(names), float(layers[-1][-1].min()))


def _with_one_more(layer: Array, costs: Array) -> Array:
    """Least loss up to each step, ending in each skill, (steps, skills), with one more change than in `layer`."""
    entered = layer.min(axis=1)
    found = np.empty_like(costs)
    found[0] = costs[0]
    for t in range(1, len(costs)):
        # From whichever skill was best before; where that is the same one, nothing changed, which is as good.
        found[t] = np.minimum(found[t - 1], entered[t - 1]) + costs[t]
    return found


def _path(layers: Sequence[Array]) -> list[int]:
    """The skill of each step, read backwards off the layers; layer s allows s changes."""
    left = len(layers) - 1
    path = [int(layers[left][-1].argmin())]
    for t in range(len(layers[0]) - 2, -1, -1):
        if left and layers[left - 1][t].min() < layers[left][t, path[-1]]:
            left -= 1
            path.append(int(layers[left][t].argmin()))
        else:
            path.append(path[-1])
    return path[::-1]


def switches(skills: Sequence[str]) -> int:
    """How often the skill changes from one step to the next."""
    return sum(a != b for a, b in pairwise(skills))
