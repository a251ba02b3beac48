"""A canary against those who would have answered instead: its figures, and the step that they ask for.

The conversations compared are its entries, those that it would win: each was drawn for it with a known probability, and
stays on that side (intention to treat), so the requests of both sides are alike. It is the comparison of `lift`, with
the canary in the place of auto and the incumbent in that of base: one value a conversation, doubly robust, and a
confidence sequence. Every share has a sequence of its own, of the conversations since it was set.

- It is **rolled back** where the interval lies below 0: it is surely worse than who would have answered.
- It is **promoted** to the next share where what that may cost is surely small: the largest loss that the interval
  leaves, times the next share, is below `margin` score points on the mean conversation that it would win.

In doubt nothing is promoted: where only some outcomes were read, where one side reports more often than it was drawn,
or where one of several API keys reports more than half of them and the others alone see a loss beyond the margin.

So an adapter that loses more than `margin` becomes everybody's with probability 2.5% at most, and a step on the way to
it, or the rollback of one that is no worse, has 2.5% at each share.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...adapters import Adapter, ConflictError, FeedbackSource, Registry
from .conversations import Conversations, Loudest, Outcome
from .outcomes import tokens_of
from .report import ALPHA, Estimate
from .sequence import Sums, Values

SHARES = (0.1, 1.0)
"""A canary is promoted to the next of these shares."""
MARGIN = 0.05
MOST = 100_000
"""How many outcomes are read at most, the newest, unless less is asked for."""
_ELSE = "-"
"""Stands for whoever answers when neither the canary's draw nor the incumbent was followed; no adapter's name."""
_DAY_S = 24 * 3600.0

Verdict = Literal["promote", "roll back", "wait"]


class CanaryFigures(BaseModel):
    """What is known of a canary at its share: how it does against who would have answered instead, and what follows."""

    model_config = ConfigDict(frozen=True)

    adapter: str = Field(description="The canary.")
    replaces: str | None = Field(
        default=None, description="The adapter in whose place it answers; null: whoever comes next, which may be base."
    )
    share: float = Field(description="The share of the conversations it would win that it gets.")
    next_share: float = Field(description="The share that it would be promoted to.")
    margin: float = Field(description="What a promotion may cost at most, in score points.")
    since: datetime = Field(description="When this share was set.")
    source: FeedbackSource = Field(description="Whose outcomes these are.")
    conversations: int = Field(description="Conversations with an outcome that it would win.")
    given: int = Field(description="Those among these that were drawn for it.")
    settling: int = Field(description="Conversations whose first outcome is less than an hour old.")
    reward_canary: float | None = Field(description="Mean reward of those that were given to it.")
    reward_incumbent: float | None = Field(description="Mean reward of the others, which who comes next answered.")
    estimate: Estimate | None = Field(
        description="Gain of the canary over who would have answered; null before both sides have outcomes."
    )
    days_left: float | None = Field(
        description="Days of such traffic until one that is as good as the incumbent is promoted; null: not known."
    )
    verdict: Verdict = Field(description="What the interval asks for.")
    notes: tuple[str, ...] = Field(description="What is doubtful.")

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        outcomes: Sequence[Outcome],
        now: datetime,
        *,
        since: datetime,
        source: FeedbackSource = FeedbackSource.USER,
        margin: float = MARGIN,
        cut: bool = False,
    ) -> Self:
        """Compare what `read_entries` gave of an adapter that gets a share."""
        share = adapter.canary or 0.0
        talks, next_share = Conversations.of(outcomes, now), next((s for s in SHARES if s > share), 1.0)
        values = talks.doubly_robust() if talks.is_compared else None
        sums = values and values.sums()
        interval = sums and sums.interval(ALPHA)
        estimate = interval and Estimate(gain=interval.mean, low=interval.low, high=interval.high)
        loud = _loud(Loudest.of(outcomes, now), margin / next_share)
        notes = tuple(note for note in (_cut(cut), _uneven(talks, share), loud) if note)
        return cls(
            adapter=adapter.name,
            replaces=adapter.replaces,
            share=share,
            next_share=next_share,
            margin=margin,
            since=since,
            source=source,
            conversations=len(talks),
            given=int((~talks.control).sum()),
            settling=talks.settling,
            reward_canary=talks.mean_reward(talks.auto),
            reward_incumbent=talks.mean_reward(talks.base),
            estimate=estimate,
            days_left=sums and _days_left(sums, margin / next_share, (now - since).total_seconds() / _DAY_S),
            verdict=verdict_of(estimate, next_share, margin, doubtful=bool(notes)),
            notes=notes,
        )


def read_figures(
    registry: Registry,
    adapter: Adapter,
    now: datetime,
    *,
    source: FeedbackSource = FeedbackSource.USER,
    margin: float = MARGIN,
    most: int = MOST,
) -> CanaryFigures:
    """Read what was reported since an adapter got its share, and compare."""
    steps = [step for step in registry.canary_steps(adapter.name) if step.weights_digest == adapter.weights_digest]
    since = steps[-1].made_at if steps else adapter.created_at
    outcomes, cut = read_entries(registry, adapter, since=since, source=source, most=most)
    return CanaryFigures.of(adapter, outcomes, now, since=since, source=source, margin=margin, cut=cut)


def read_entries(
    registry: Registry, adapter: Adapter, *, since: datetime, source: FeedbackSource, most: int = MOST
) -> tuple[list[Outcome], bool]:
    """The outcomes of the conversations that an adapter would win at its share, and whether older ones were left out.

    They are written as those of an experiment in which the canary is the policy, and the incumbent takes base's place.
    """
    rows = registry.feedback(since=since, source=source, newest=most)
    outcomes = []
    for row, token in tokens_of(rows):
        if token.canary != adapter.name or token.share != adapter.canary or row.reward is None:
            continue
        followed = token.adapter == token.policy
        given, incumbent = followed and token.given, followed and not token.given
        outcomes.append(
            Outcome(
                conversation=token.conversation,
                adapter=adapter.name if given else None if incumbent else _ELSE,
                policy=adapter.name,
                propensity=token.propensity * (token.share if token.given else 1 - token.share),
                control=not token.given,
                kind=token.kind,
                level=token.level,
                reward=row.reward,
                known=row.rewarded_at or row.created_at,
                reporter=row.reporter,
            )
        )
    return outcomes, len(rows) == most


def take_steps(
    registry: Registry,
    now: datetime | None = None,
    *,
    source: FeedbackSource = FeedbackSource.USER,
    margin: float = MARGIN,
) -> list[CanaryFigures]:
    """Promote or roll back every canary whose figures ask for it, and return these figures."""
    taken, now = [], now or datetime.now(UTC)
    for adapter in registry.canaries():
        figures = read_figures(registry, adapter, now, source=source, margin=margin)
        try:
            if take_step(registry, adapter, figures):
                taken.append(figures)
        except ConflictError:
            # Another took the step, or an administrator another one.
            continue
    return taken


def take_step(registry: Registry, adapter: Adapter, figures: CanaryFigures) -> bool:
    """Do what the figures ask for; whether there was something to do.

    Raises:
        ConflictError: the adapter was changed since it was read.
    """
    kept = figures.model_dump(mode="json")
    if figures.verdict == "promote":
        registry.set_canary(adapter.name, figures.next_share, why="promoted", figures=kept, expected=adapter)
    elif figures.verdict == "roll back":
        registry.set_canary(adapter.name, 0.0, why="rolled back", figures=kept, expected=adapter)
    return figures.verdict != "wait"


def verdict_of(
    estimate: Estimate | None, next_share: float, margin: float = MARGIN, *, doubtful: bool = False
) -> Verdict:
    """What an estimate asks for."""
    if estimate is None:
        return "wait"
    if estimate.high < 0:
        return "roll back"
    # In doubt nothing is promoted, but what looks bad is rolled back.
    return "promote" if next_share * -estimate.low < margin and not doubtful else "wait"


def _days_left(sums: Sums, tolerated: float, days: float) -> float | None:
    """Days until the lower end lies no further than this below the estimate, after so many `days` with these sums."""
    factors = np.geomspace(1, 1e3, 100)
    enough = (f for f in factors if float(sums.mean - sums.scaled(f).low(ALPHA / 2)) < tolerated)
    return next((float(f - 1) * days for f in enough), None)


def _cut(cut: bool) -> str | None:
    return "there are more outcomes, and only the newest were read, so nothing is promoted by them" if cut else None


def _loud(loudest: Loudest | None, tolerated: float) -> str | None:
    """Whether one of several keys would have it promoted, and the others would not."""
    if loudest is None or (loudest.gain is not None and loudest.gain > -tolerated):
        return None
    return f"{loudest}: nothing is promoted by that"


def _uneven(talks: Conversations, share: float) -> str | None:
    """Whether outcomes are reported more often, or less, of what was given to the canary."""
    if not talks.is_compared:
        return None
    flags = (~talks.control).astype(np.float64)
    ones = np.ones(len(flags))
    given = Values(flags, share * ones, share * ones, (1 - share) * ones, 1.0).sums().interval(ALPHA, least=0.0)
    if given.low <= share <= given.high:
        return None
    return (
        f"{given.mean:.1%} of the conversations with an outcome were given to the canary, where {share:.1%} were "
        "drawn: outcomes are reported more often of one side, so nothing is promoted by them"
    )
