"""The comparison behind `lift`: each conversation's outcome, and what it says of the gain of `auto` over base.

The unit is the conversation, since all its answers fall to one side of the draw: its reward is the mean of what was
reported within an hour of its first report, and only then does it count. So the sequence of conversations only ever
grows at its end, which is what a confidence sequence needs, however late or often a reader looks.

What auto and base would each have got in one and the same conversation is never seen. For each conversation there are
two estimates of the difference whose expectation is right whatever the profile predicts, since the propensity of who
answered is known and not estimated:

- inverse propensity: reward / propensity where auto's choice answered, minus that where base did;
- doubly robust (AIPW; Robins, Rotnitzky and Zhao, 1994): the difference of the expected rewards, corrected by the
  surprise / propensity of whoever answered. The expectation is the profile's: the score that base was measured to have
  on the nearest task, shifted by the mean surprise of the conversations before, so that rewards need not be on the
  scale of scores.

Where auto's choice is base itself the difference is 0, exactly.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .sequence import Values

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SETTLING_S = 3600.0
"""Outcomes of one conversation count that are reported within so many seconds of its first."""
_NONE = np.array(None, object)
_PRIOR = 10.0
"""The shift of expected rewards is shrunk to 0 as if so many conversations had no surprise."""


@dataclass(frozen=True)
class Outcome:
    """A decision of the experiment, and the `reward` in [0, 1] that was reported of it at `known`.

    `adapter` answered (None: base) where `policy` is whom auto chooses; `propensity` is the probability with which that
    one would answer, and `control` says that the conversation was held back. `kind` is the nearest profiled task, and
    `level` the score of base on it (None: not known). `reporter` stands for the API key that reported it.
    """

    conversation: str
    adapter: str | None
    policy: str | None
    propensity: float
    control: bool
    kind: str | None
    level: float | None
    reward: float
    known: datetime
    reporter: str | None = None


@dataclass(frozen=True)
class Loudest:
    """The one of several API keys that reported more than half of the conversations, a `share` of them.

    `gain` is the doubly robust estimate without what it reported; None where that leaves nothing to compare.
    """

    share: float
    gain: float | None

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], now: datetime) -> Self | None:
        """Whether one key decides these outcomes alone."""
        reporters = Counter({outcome.conversation: outcome.reporter for outcome in outcomes}.values())
        [(loudest, count), *others] = reporters.most_common() or [(None, 0)]
        if not others or count <= reporters.total() / 2:
            return None
        talks = Conversations.of([outcome for outcome in outcomes if outcome.reporter != loudest], now)
        gain = float(talks.doubly_robust().sums().mean) if talks.is_compared else None
        return cls(count / reporters.total(), gain)

    def __str__(self) -> str:
        rest = "the others leave nothing to compare" if self.gain is None else f"by the others it is {self.gain:+.3f}"
        return f"one API key reported {self.share:.0%} of the conversations and may decide the gain; {rest}"


@dataclass(frozen=True)
class Conversations:
    """n conversations, in the order in which they came to count, at `known` (n,) in seconds since 1970.

    `auto` and `base` (n,) say whether auto's choice answered, and whether base did; `control` (n,) whether base did
    because the conversation was held back, where auto chooses an adapter. `policy` and `kind` are names, and None.
    `level` is nan where it is not known. `settling` more conversations do not count yet.
    """

    known: Array
    reward: Array
    propensity: Array
    auto: Flags
    base: Flags
    control: Flags
    policy: NDArray[np.object_]
    kind: NDArray[np.object_]
    level: Array
    settling: int = 0

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], now: datetime) -> Self:
        """Join the outcomes of each conversation; `now` is when the reader looks."""
        column = lambda name, kind: np.array([getattr(o, name) for o in outcomes], kind)  # noqa: E731
        known = np.array([o.known.timestamp() for o in outcomes], np.float64)
        policy, adapter = column("policy", object), column("adapter", object)
        rows = cls(
            known=known,
            reward=column("reward", np.float64),
            propensity=column("propensity", np.float64),
            auto=np.equal(policy, adapter).astype(bool),
            base=np.equal(adapter, _NONE).astype(bool),
            control=column("control", bool) & np.not_equal(policy, _NONE).astype(bool),
            policy=policy,
            kind=column("kind", object),
            level=np.array([np.nan if o.level is None else o.level for o in outcomes], np.float64),
        )
        return rows.joined(column("conversation", str), now.timestamp())

    def joined(self, conversation: NDArray[Any], now: float) -> Self:
        """These rows, one an outcome, as one a `conversation` (n,): its first row, with the mean reward.

        Rows that another than at first answered, as after a new profile, are left out.
        """
        order = np.argsort(self.known, kind="stable")
        rows = self[order]
        _, first, place = np.unique(conversation[order], return_index=True, return_inverse=True)
        own = first[place]
        same = (rows.policy == rows.policy[own]) & (rows.auto == rows.auto[own]) & (rows.base == rows.base[own])
        within = rows.known <= rows.known[own] + SETTLING_S
        counted = (same & within).astype(np.float64)
        reward = np.bincount(place, counted * rows.reward, len(first)) / np.bincount(place, counted, len(first))
        whole = rows[first].changed(reward=reward, known=rows.known[first] + SETTLING_S)
        in_order = whole[np.argsort(whole.known, kind="stable")]
        settled = in_order.known <= now
        return in_order[settled].changed(settling=int((~settled).sum()))

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, rows: Any) -> Self:
        return self.changed(**{name: getattr(self, name)[rows] for name in _ARRAYS})

    def changed(self, **changes: Any) -> Self:
        """These conversations with other columns."""
        return type(self)(**{f.name: getattr(self, f.name) for f in fields(self)} | changes)

    @property
    def chosen(self) -> Flags:
        """Whether auto chooses an adapter."""
        return np.not_equal(self.policy, _NONE).astype(bool)

    @property
    def holdback(self) -> float | None:
        """The share that is held back; None before anybody was, or where it changed."""
        shares = np.unique(self.propensity[self.control])
        return float(shares[0]) if len(shares) == 1 else None

    @property
    def is_compared(self) -> bool:
        """Whether there are conversations on both sides of the draw.

        Base as second choice alone would not do: it is none where another adapter is.
        """
        return bool((self.control & self.base).any() and (self.chosen & self.auto).any())

    def doubly_robust(self) -> Values:
        """The doubly robust value of each conversation (n,); only where `is_compared`."""
        return self._values(self._expected(self.chosen & self.auto), self._expected(self.base))

    def inverse_propensity(self) -> Values:
        """The inverse-propensity value of each conversation (n,); only where `is_compared`."""
        return self._values(np.zeros(len(self)), np.zeros(len(self)))

    def _values(self, by_auto: Array, by_base: Array) -> Values:
        """The values where these rewards are expected (n,)."""
        chosen, r, p = self.chosen, self.reward, self.propensity
        # A token tells the propensity of who answered; where there are no second choices the other had the rest, which
        # bounds what a rare draw may bring before it is seen.
        of_auto = float(min(p[chosen & self.auto].min(), (1 - p[chosen & self.base]).min()))
        of_base = float(min(p[chosen & self.base].min(), (1 - p[chosen & self.auto]).min()))
        surprise = np.where(self.auto, r - by_auto, 0.0) - np.where(self.base, r - by_base, 0.0)
        predicted = np.where(chosen, by_auto - by_base, 0.0)
        below = np.maximum(by_auto / of_auto, (1 - by_base) / of_base)
        above = np.maximum((1 - by_auto) / of_auto, by_base / of_base)
        return Values(
            values=predicted + np.where(chosen, surprise / p, 0.0),
            predictions=predicted,
            below=np.where(chosen, below, 0.0),
            above=np.where(chosen, above, 0.0),
            reach=1 / min(of_auto, of_base),
        )

    def mean_reward(self, answered: Flags) -> float | None:
        """The self-normalised mean reward of all, had they been answered as those of `answered` (n,) were."""
        if not (answered & self.chosen).any():
            return None
        weights = answered / self.propensity
        return float((weights * self.reward).sum() / weights.sum())

    def _expected(self, answered: Flags) -> Array:
        """The expected reward of each (n,), given the surprises of those `answered` (n,) that came before it."""
        level = np.nan_to_num(self.level, nan=0.5)
        surprise = np.where(answered, self.reward - level, 0.0)
        before = surprise.cumsum() - surprise
        shift = before / (answered.cumsum() - answered + _PRIOR)
        return np.clip(level + shift, 0.0, 1.0)


_ARRAYS = [f.name for f in fields(Conversations) if f.name != "settling"]
