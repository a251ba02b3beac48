"""The outcomes of the registry that belong to the experiment of the control group."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from ...adapters import Feedback, FeedbackSource, Registry
from ..profile_snapshot import DecisionToken, TokenError
from .conversations import Outcome
from .kinds import kinds_of


@dataclass(frozen=True)
class Reported:
    """What `source` reported since `since`, or all of it: the `outcomes` of the experiment, and how many are `outside`.

    Outside are decisions that nothing was drawn for: while there was no control group, for an agent that selected a
    skill by itself, or by a TraitRoute that knew none. Of these `undrawn` are of an adapter that auto chose meanwhile,
    on a server or for a tenant without a control group. `cut` says that there were more, older ones, which were not
    read. `kinds` and `adapters` are how many the newest profile has; `kind_of` says which kind a task is one of, where
    tasks are so many that several are one.
    """

    source: FeedbackSource
    outcomes: Sequence[Outcome]
    outside: int = 0
    undrawn: int = 0
    since: datetime | None = None
    cut: bool = False
    kinds: int = 0
    adapters: int = 0
    kind_of: Mapping[str, str] = field(default_factory=dict)


def read_outcomes(
    registry: Registry,
    *,
    since: datetime | None = None,
    source: FeedbackSource = FeedbackSource.USER,
    most: int | None = None,
) -> Reported:
    """Read what was reported of the decisions made `since`, the newest `most` of them."""
    rows = registry.feedback(since=since, source=source, newest=most)
    read = tokens_of(rows)
    # Where auto chooses base, a token does not tell whether anything was drawn.
    drawn = [token.made for _, token in read if token.policy is not None and token.propensity < 1]
    begun = min(drawn, default=float("inf"))
    outcomes = [
        Outcome(
            conversation=token.conversation,
            adapter=token.adapter,
            policy=token.policy,
            propensity=token.propensity,
            control=token.arm == "control",
            kind=token.kind,
            level=token.level,
            reward=row.reward,
            known=row.rewarded_at or row.created_at,
            reporter=row.reporter,
        )
        for row, token in read
        if row.reward is not None and token.made >= begun and (token.policy is None or token.propensity < 1)
    ]
    profile = registry.latest_profile()
    kind_of = kinds_of(profile) if profile else {}
    return Reported(
        source=source,
        outcomes=outcomes,
        outside=len(rows) - len(outcomes),
        undrawn=sum(token.made >= begun and token.policy is not None and token.propensity == 1 for _, token in read),
        since=since,
        cut=most is not None and len(rows) == most,
        kinds=len(set(kind_of.values()) or profile.summary.tasks) + 1 if profile else 0,
        adapters=len(profile.summary.adapters) if profile else 0,
        kind_of=kind_of,
    )


def tokens_of(rows: Sequence[Feedback]) -> list[tuple[Feedback, DecisionToken]]:
    """What was reported of conversations, with the decisions' tokens."""
    return [(row, token) for row in rows if (token := _token(row.token)) and token.conversation]


def _token(text: str) -> DecisionToken | None:
    # Feedback that was put into the registry in another way has no token of ours.
    with suppress(TokenError):
        return DecisionToken.read(text)
    return None
