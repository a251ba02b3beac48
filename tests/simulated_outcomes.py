"""Outcomes of simulated conversations: of a control group, and of a canary and its incumbent."""

from datetime import UTC, datetime, timedelta

import numpy as np
from traitroute.adapters import Feedback, Registry
from traitroute.serving.profile_snapshot import DecisionToken


def feedback_on(token: DecisionToken, reward: float) -> Feedback:
    """The row of a decision whose reward was reported at once."""
    made = datetime.fromtimestamp(token.made, UTC)
    return Feedback(
        token=token.sign(b"key"),
        adapter=token.adapter,
        predicted_gain=token.gain,
        reward=reward,
        created_at=made,
        rewarded_at=made,
    )


def report_control_group(
    registry: Registry,
    adapter: str,
    kind: str,
    count: int,
    *,
    first: int = 0,
    begun: datetime | None = None,
    apart: timedelta = timedelta(),
) -> None:
    """Conversations for an adapter, of which base answers every second one: its answers are right, those of base wrong.

    They `begun` three hours ago, one `apart` from the other, and are numbered from `first` on.
    """
    begun = begun or datetime.now(UTC) - timedelta(hours=3)
    for i in range(first, first + count):
        held_back = i % 2 == 0
        token = DecisionToken(
            adapter=None if held_back else adapter,
            gain=0.0,
            level=0.4,
            version=1,
            made=int((begun + i * apart).timestamp()),
            propensity=0.5,
            policy=adapter,
            arm="control" if held_back else "auto",
            kind=kind,
            conversation=f"talk {i}",
        )
        registry.put_feedback(feedback_on(token, 0.0 if held_back else 1.0))


def entry_of(canary: str, incumbent: str, n: int, *, given: bool, share: float, made: datetime) -> DecisionToken:
    """The token of conversation n, which a canary would win, and which it or the incumbent answers."""
    answerer = canary if given else incumbent
    return DecisionToken(
        adapter=answerer,
        gain=0.1,
        level=0.5,
        version=1,
        made=int(made.timestamp()),
        policy=answerer,
        arm="canary" if given else "auto",
        conversation=f"talk {n}",
        canary=canary,
        share=share,
        given=given,
    )


def enter_canary(
    registry: Registry, canary: str, incumbent: str, right: tuple[float, float], *, share: float, count: int
) -> None:
    """A canary that got its share two days ago, and `count` conversations since that it would win.

    It and the incumbent are `right` with these probabilities.
    """
    rng, begun = np.random.default_rng(0), datetime.now(UTC) - timedelta(days=2)
    registry.set_canary(canary, share, why="entered")
    with registry._writing() as connection:
        at = f"{begun:%Y-%m-%d %H:%M:%S.000000}"
        connection.exec_driver_sql(f"UPDATE canary_steps SET made_at = '{at}' WHERE adapter = '{canary}'")
    rows = []
    for i in range(count):
        given, made = bool(rng.random() < share), begun + timedelta(days=1.9) * i / count
        token = entry_of(canary, incumbent, i, given=given, share=share, made=made)
        rows.append(feedback_on(token, float(rng.random() < right[0 if given else 1])))
    registry.put_feedback(*rows)
