"""How decisions turned out, kept in the registry: a token, names and numbers, never text.

A decision token carries what was decided, so no server has to remember its decisions, and any replica takes feedback on
those of any other. With the source that says so it is the row's key, so each source rewards a decision once. It states
when it was made and by which weights, so it is valid for some days, and for these weights alone. The reporter is kept
as a hash of the API key, so that feedback with one key can be kept to its share.
"""

import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from ...adapters import (
    ConflictError,
    DatabaseError,
    FeedbackSource,
    InputError,
    Location,
    Registry,
    RegistryError,
    TooManyError,
    UnknownNameError,
)
from ..http.errors import RefusedError, UnavailableError
from ..profile_snapshot import DecisionToken, OldTokenError, TokenError, signing_key
from .models import FeedbackKept, FeedbackRequest

CLOCK_SKEW_S = 300
"""How far the clocks of a registry's servers may differ."""
DAYS_VARIABLE, HOURLY_VARIABLE = "TRAITROUTE_FEEDBACK_DAYS", "TRAITROUTE_FEEDBACK_PER_HOUR"
_DAY_S = 24 * 3600
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedbackLimits:
    """Feedback is taken for `days` after a decision, and up to `hourly` times an hour from one API key."""

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


def keep_feedback(
    request: FeedbackRequest,
    location: Location,
    *,
    newest: tuple[int, bytes],
    reporter: bytes | None,
    limits: FeedbackLimits,
    may_name: Callable[[str], bool] = lambda adapter: True,
) -> FeedbackKept:
    """Store the outcome of a decision, or of two compared, in the registry at `location`; blocks.

    `newest` is the version and signing key of the newest profile, `reporter` the digest of the API key (None: no key),
    `may_name` says which adapters its tenant knows.

    Raises:
        RefusedError: no server of this registry made the decision, its outcome is known already, it is too old, or
            other weights than today's answered.
        TooManyError: the hourly limit of this API key is reached.
        UnavailableError: the registry cannot be written.
    """
    try:
        with Registry.open(location) as registry:
            source = FeedbackSource(request.source if request.better_than is None else FeedbackSource.COMPARISON)
            given_by = registry.reporter(reporter or platform.node().encode())
            rewards = request.rewards
            verified = partial(_verified, registry=registry, newest=newest, may_name=may_name)
            decisions = {part: _checked(rewards[part][0], part, verified, registry, limits) for part in rewards}
            rows = [
                decisions[part].rewarded(token, reward, source=source, reporter=given_by)
                for part, (token, reward) in rewards.items()
            ]
            registry.put_feedback(*rows, hourly=limits.hourly)
    except ConflictError as exc:
        raise _refused(
            409, "the outcome of this decision was reported before, and is kept: each source is heard once"
        ) from exc
    except TooManyError:
        raise
    except (DatabaseError, RegistryError) as exc:
        _logger.warning("traitroute: feedback is not kept: %s", exc)
        raise UnavailableError("the registry takes no feedback now: try again later") from exc
    decision, (_, reward) = decisions["decision"], rewards["decision"]
    return FeedbackKept(
        skill=decision.adapter or "base", profile_version=decision.version, reward=reward, source=source
    )


def _checked(
    token: str, part: str, verified: Callable[[str], DecisionToken], registry: Registry, limits: FeedbackLimits
) -> DecisionToken:
    """The decision of a token, in the field `part`, that may still be rewarded."""
    try:
        decision = verified(token)
        _check_age(decision, limits)
        _check_weights(decision, registry)
    except RefusedError as refused:
        refused.param = part
        raise
    return decision


def _verified(
    token: str, registry: Registry, newest: tuple[int, bytes], may_name: Callable[[str], bool]
) -> DecisionToken:
    try:
        version = DecisionToken.read(token).version
        decision = DecisionToken.verify(token, _key(version, registry, newest))
        if not all(may_name(name) for name in (decision.adapter, decision.policy, decision.canary) if name is not None):
            raise TokenError("it was made for another tenant")
        return decision
    except OldTokenError as exc:
        raise _refused(
            410,
            "this decision was made by an older version of TraitRoute, whose tokens say neither when "
            "nor by which weights: report the outcomes of decisions made since",
        ) from exc
    except TokenError as exc:
        raise _refused(
            404,
            "no server of this registry made this decision: give the token that came with it, in the "
            'field "decision" or in the header x-traitroute-decision-token',
        ) from exc


def _key(version: int, registry: Registry, newest: tuple[int, bytes]) -> bytes:
    newest_version, key = newest
    if version == newest_version:
        return key
    if version not in registry.profile_versions():
        raise TokenError(f"no profile has version {version}")
    return signing_key(registry.profile(version))


def _check_age(decision: DecisionToken, limits: FeedbackLimits) -> None:
    age = time.time() - decision.made
    if age > limits.days * _DAY_S + CLOCK_SKEW_S:
        raise _refused(
            410,
            f"this decision was made {age / _DAY_S:.1f} days ago, and feedback is taken for "
            f"{limits.days:g} days: report outcomes sooner ({DAYS_VARIABLE} sets it)",
        )
    if age < -CLOCK_SKEW_S:
        raise _refused(400, f"this decision lies {-age:.0f} s ahead: set the clocks of this registry's servers")


def _check_weights(decision: DecisionToken, registry: Registry) -> None:
    if decision.adapter is None:
        return
    try:
        current = registry.adapter(decision.adapter).weights_digest
    except UnknownNameError as exc:
        raise _refused(410, f"the skill {decision.adapter!r}, which answered, was removed since") from exc
    if not decision.is_of(current):
        raise _refused(
            410,
            f"the skill {decision.adapter!r} has other weights since this decision, and its outcome "
            "says nothing of them: report the outcomes of decisions made since",
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


def _refused(status: int, message: str) -> RefusedError:
    return RefusedError(message, status=status, param="decision")
