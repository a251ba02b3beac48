"""Conversations of which the outcomes are known."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from traitroute.serving.lift.conversations import Outcome

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


def outcome(n: int, reward: float, **parts: Any) -> Outcome:
    """The outcome of conversation n, a minute after that of the last; it is of chef unless `parts` say so."""
    held_back = parts.pop("held_back", False)
    made_up: dict[str, Any] = {
        "conversation": f"talk {n}",
        "adapter": None if held_back else "chef",
        "policy": "chef",
        "propensity": 0.1 if held_back else 0.9,
        "control": held_back,
        "kind": "cooking",
        "level": 0.5,
        "reward": reward,
        "known": BEGUN + timedelta(minutes=n),
    }
    return Outcome(**made_up | parts)


def month(gain: float, count: int = 4000, *, base: float = 0.5, seed: int = 0, **parts: Any) -> list[Outcome]:
    """Conversations of which a tenth was held back, where the adapter's mean reward lies `gain` above base's."""
    rng = np.random.default_rng(seed)
    held_back = rng.random(count) < 0.1
    rewards = (rng.random(count) < np.where(held_back, base, base + gain)).astype(float)
    return [outcome(n, rewards[n], held_back=bool(held_back[n]), **parts) for n in range(count)]


@pytest.fixture
def talk() -> Callable[..., Outcome]:
    """Make one outcome."""
    return outcome


@pytest.fixture
def talks() -> Callable[..., list[Outcome]]:
    """Make many outcomes."""
    return month


@pytest.fixture
def later() -> datetime:
    """A time at which all of them count."""
    return BEGUN + timedelta(days=90)
