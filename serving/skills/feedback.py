"""How decisions turned out, kept in the registry: a token, names and numbers, never text.

The token brings along what was decided, so no server has to remember its decisions, and any replica takes feedback for
those of any other. It is the row's key, so each decision is rewarded once. It tells when it was made and by which weights, so
it is good for some days, and for these weights alone. Who told is kept as a hash of the API key, so that no key's feedback
can be more than its share.
"""

import logging
import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from ...adapters import (
    ConflictError,
    DatabaseError,
    Feedback,
    InputError,
    Registry,
    RegistryError,
    RunError,
    TooManyError,
    UnknownNameError,
)
from ..http.errors import RefusedError
from .models import FeedbackKept, FeedbackRequest
from .snapshot import Snapshot, signing_key
from .token import DecisionToken, OldTokenError, TokenError

CLOCK_SKEW_S = 300
"""So far the clocks of a registry's servers may be apart."""
DAYS_VARIABLE, HOURLY_VARIABLE = "TRAITROUTE_FEEDBACK_DAYS", "TRAITROUTE_FEEDBACK_PER_HOUR"
_DAY_S = 24 * 3600
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedbackLimits:
    """For how many `days` after a decision feedback on it is taken, and how much `hourly` from one API key."""

    days: float = 7.0
    hourly: int = 1000

    @classmethod
    def from_environment(cls) -> Self:
        """The limits that the operator set.

        Raises:
            InputError: one is no number, or out of range.
        """
        days = _number(DAYS_VARIABLE, cls.days, most=365)
        return cls(days, int(_number(HOURLY_VARIABLE, cls.hourly, most=10**9, least=1)))


class UnkeptError(RunError):
    """The registry takes no feedback now."""


def keep_feedback(
    told: FeedbackRequest, snapshot: Snapshot, *, key: bytes | None, limits: FeedbackLimits
) -> FeedbackKept:
    """Keep what was told of a decision by whom the digest `key` (None: no key) stands for, through a handle of its own; blocks.

    Raises:
        RefusedError: no server of this registry made the decision, it was told of before, is too old, or other weights
            than today's answered.
        TooManyError: the key told as much as it may for now.
        UnkeptError: the registry cannot be written.
    """
    try:
        with Registry.open(snapshot.location) as registry:
            made = _verified(told.decision, registry, snapshot)
            _check_age(made, limits)
            _check_weights(made, registry)
            registry.put_feedback(
                Feedback(
                    token=told.decision,
                    adapter=made.adapter,
                    predicted_gain=made.gain,
                    profile_version=made.version,
                    reward=told.reward,
                    created_at=datetime.fromtimestamp(made.made, UTC),
                    rewarded_at=datetime.now(UTC),
                    reporter=registry.reporter(key or platform.node().encode()),
                ),
                hourly=limits.hourly,
            )
    except ConflictError as exc:
        raise _told_before() from exc
    except TooManyError:
        raise
    except (DatabaseError, RegistryError) as exc:
        _logger.warning("traitroute: feedback is not kept: %s", exc)
        raise UnkeptError("the registry takes no feedback now: try again later") from exc
    return FeedbackKept(skill=made.adapter or "base", profile_version=made.version, reward=told.reward)


def _verified(token: str, registry: Registry, snapshot: Snapshot) -> DecisionToken:
    try:
        version = DecisionToken.read(token).version
        return DecisionToken.verify(token, _key(version, registry, snapshot))
    except OldTokenError as exc:
        raise _gone(
            "this decision was made by an older version of TraitRoute, whose tokens say neither when "
            "nor by which weights: tell the outcomes of decisions made since"
        ) from exc
    except TokenError as exc:
        raise RefusedError(
            "no server of this registry made this decision: give the token that came with it, in the "
            'field "decision" or in the header x-traitroute-decision-token',
            status=404,
            param="decision",
        ) from exc


def _key(version: int, registry: Registry, snapshot: Snapshot) -> bytes:
    if version == snapshot.version:
        return snapshot.key
    if version not in registry.profile_versions():
        raise TokenError(f"no profile has version {version}")
    return signing_key(registry.profile(version))


def _check_age(made: DecisionToken, limits: FeedbackLimits) -> None:
    age = time.time() - made.made
    if age > limits.days * _DAY_S + CLOCK_SKEW_S:
        raise _gone(
            f"this decision was made {age / _DAY_S:.1f} days ago, and feedback is taken for "
            f"{limits.days:g} days: tell outcomes sooner ({DAYS_VARIABLE} sets it)"
        )
    if age < -CLOCK_SKEW_S:
        message = f"this decision lies {-age:.0f} s ahead: set the clocks of this registry's servers"
        raise RefusedError(message, param="decision")


def _check_weights(made: DecisionToken, registry: Registry) -> None:
    if made.adapter is None:
        return
    try:
        current = registry.adapter(made.adapter).weights_digest
    except UnknownNameError as exc:
        raise _gone(f"the skill {made.adapter!r}, which answered, was removed since") from exc
    if not made.is_of(current):
        raise _gone(
            f"the skill {made.adapter!r} has other weights since this decision, and its outcome "
            "says nothing of them: tell the outcomes of decisions made since"
        )


def _number(variable: str, default: float, *, most: float, least: float = 0.0) -> float:
    given = os.environ.get(variable, "").strip()
    try:
        number = float(given) if given else default
    except ValueError:
        number = -1.0
    # Written so that NaN is refused too.
    if not (least <= number <= most and number > 0):
        raise InputError(f"{variable} is {given!r}: give a number above 0, up to {most:g}")
    return number


def _gone(message: str) -> RefusedError:
    return RefusedError(message, status=410, param="decision")


def _told_before() -> RefusedError:
    message = "the outcome of this decision was told before, and is kept: tell each decision's once"
    return RefusedError(message, status=409, param="decision")
