"""Everyday requests: questions, wishes and chat, such as reach any server that people talk to.

A profile is made of tasks, and knows nothing of these; yet adapters that gain on most tasks lose much on them. Of the
demo's six the best was right on 69% of 96 such requests, two on 1% or less, and base on 75% (`benchmarks/everyday.py`).
So a request is read as one of two kinds: a task, of which the profile tells the gain, or an everyday request. How
likely the latter is, a logistic regression tells from the features of everyday requests and of tasks: those that were
profiled, and some of other people's. Without the others, where few are profiled, what is like neither is half and half
(docs/decisions.md).

`everyday.tsv` holds, in three columns, a sort, a request, and words of which one is in any right answer.
`other_tasks.safetensors` holds the tokens of other people's tasks, and no text; `python benchmarks/everyday.py --write`
makes it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from .meaning import packaged_encoder
from .request import Counts, RequestTokens, tokens_of

Array = NDArray[np.float64]

EXPECTED, EXPECTED_BY_FEW = 0.06, 0.12
"""The share of requests that are taken to be everyday ones, before they are read. With half of it nearly twice as many
of them reach adapters; twice as much costs gain on kinds that nobody profiled, most where base is often right
(`benchmarks/everyday.py`). Twice as much it is where few groups are profiled, which tell the least of what an adapter
does elsewhere: with two adapters and five tasks half of them still reached an adapter (docs/decisions.md)."""
FEW_GROUPS = 19
"""So many groups are not few: as many as can show that a risk of 5% is kept (`guard.py`)."""
LOSS = 0.4
"""What an adapter is taken to lose on everyday requests where that was not measured, in score points: the mean of the
demo's six."""
BASE_SCORE = 0.75
"""What base scores there."""
INVERSE_PENALTY = 10.0


@dataclass(frozen=True)
class EverydayRequest:
    """A request, its sort, and the words of which one is in any right answer."""

    sort: str
    text: str
    accepted: tuple[str, ...]


@cache
def everyday_requests() -> tuple[EverydayRequest, ...]:
    """The everyday requests that ship with the package."""
    lines = (resources.files("traitroute.router") / "everyday.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return tuple(EverydayRequest(sort, text, tuple(accepted.split(";"))) for sort, text, accepted in rows)


@cache
def everyday_tokens() -> tuple[RequestTokens, ...]:
    """The same, read."""
    return tuple(tokens_of(each.text) for each in everyday_requests())


@dataclass(frozen=True)
class OtherTasks:
    """Tokens of n requests, and the checksum of the name of the group of tasks that each is of, `groups` (n,)."""

    requests: tuple[RequestTokens, ...]
    groups: NDArray[np.uint32]

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """Those that ship with the package."""
        arrays = load((resources.files("traitroute.router") / "other_tasks.safetensors").read_bytes())
        ends = np.cumsum(arrays["words"])[:-1]
        places = np.split(arrays["places"].astype(np.int64), ends)
        counts = np.split(arrays["counts"].astype(np.float64), ends)
        edges = map(Counts, places, counts)
        meaning = arrays["meaning"].astype(np.float32)
        # Features are made of edges and meaning alone, so the words between are not kept.
        return cls(tuple(RequestTokens(e, e, m) for e, m in zip(edges, meaning, strict=True)), arrays["groups"])

    def to_bytes(self) -> bytes:
        """Serialise edges and meanings, of which features are made."""
        edges = [request.edges for request in self.requests]
        arrays = {
            "groups": self.groups,
            "meaning": np.array([request.meaning for request in self.requests], np.float16),
            "words": np.array([len(each.places) for each in edges], np.uint16),
            "places": np.concatenate([each.places for each in edges]).astype(np.uint16),
            "counts": np.concatenate([each.counts for each in edges]).clip(max=255).astype(np.uint8),
        }
        return save(arrays, metadata={"encoder": packaged_encoder().digest})

    def less(self, names: Collection[str]) -> Self:
        """Those that are of no group of these names."""
        kept = np.flatnonzero(np.isin(self.groups, [checksum(name) for name in names], invert=True))
        return type(self)(tuple(self.requests[i] for i in kept), self.groups[kept])


def checksum(group: str) -> int:
    """The checksum of a group's name."""
    return crc32(group.encode())


def expected_share(groups: int) -> float:
    """The share of everyday requests that is expected where so many groups are profiled."""
    return EXPECTED if groups >= FEW_GROUPS else EXPECTED_BY_FEW


def losses_of(measured: Sequence[float | None]) -> Array:
    """What adapters lose on everyday requests (a,), by what was measured (None: it was not)."""
    return np.array([LOSS if lost is None else lost for lost in measured], np.float64)


def fit_everyday(everyday: Array, tasks: Array, groups: NDArray[np.intp], share: float) -> Array:
    """Learn to tell `everyday` requests (m, p), a `share` of all, from those of `tasks` (n, p), whose `groups` (n,)
    count alike.

    Returns the weights of features and, last, the intercept, (p + 1,), by which `chance` goes.
    """
    from sklearn.linear_model import LogisticRegression

    size = len(everyday)
    _, of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weight = np.concatenate([np.ones(size), size / (len(counts) * counts[of])])
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=500)
    model.fit(np.vstack([everyday, tasks]), np.arange(len(weight)) < size, sample_weight=weight)
    odds = np.log(share / (1 - share))
    return np.append(model.coef_[0], model.intercept_[0] + odds).astype(np.float64)


def chance(weights: Array, *features: Array) -> Array:
    """The chance (...) that requests are everyday ones, by the blocks of their features (..., p)."""
    odds, start = np.asarray(weights[-1]), 0
    for block in features:
        odds = odds + block @ weights[start : start + block.shape[-1]]
        start += block.shape[-1]
    return 1 / (1 + np.exp(-odds))
