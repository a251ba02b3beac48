"""How decisions turned out, kept in the registry: a token, names and numbers, never text.

A decision token carries what was decided, so no server has to remember its decisions, and any replica takes feedback on
those of any other. It is the row's key, so each decision is rewarded once. It states when it was made and by which
weights, so it is valid for some days, and for these weights alone. The reporter is kept as a hash of the API key, so
that feedback with one key can be kept to its share.

A token is `PAYLOAD.SIGNATURE`, both URL-safe base64 (RFC 4648, section 5) without padding. The payload is a JSON list
that anybody can read; the signature, 16 bytes of HMAC-SHA-256, proves that a server of the registry made it.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import platform
import secrets
import time
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import TypeAdapter

from ...adapters import (
    ConflictError,
    DatabaseError,
    Feedback,
    InputError,
    Location,
    Registry,
    RegistryError,
    StoredProfile,
    TooManyError,
    UnknownNameError,
)
from ..http.errors import RefusedError, UnavailableError
from .models import FeedbackKept, FeedbackRequest

CLOCK_SKEW_S = 300
"""How far the clocks of a registry's servers may differ."""
DAYS_VARIABLE, HOURLY_VARIABLE = "TRAITROUTE_FEEDBACK_DAYS", "TRAITROUTE_FEEDBACK_PER_HOUR"
_DAY_S = 24 * 3600
_FORMAT = 2
_FORMAT_1 = {"adapter", "gain", "level", "version", "id"}
_DIGITS = 16
_PAYLOAD = TypeAdapter(tuple[Literal[2], str | None, float, float | None, int, str | None, int, str])
_logger = logging.getLogger(__name__)


class TokenError(InputError):
    """A text is no decision token."""


class OldTokenError(TokenError):
    """A text is a decision token of the first format, which states neither when it was made nor by which weights."""


@dataclass(frozen=True)
class DecisionToken:
    """Which adapter was chosen (None: base) by which profile version, with what predicted gain.

    `level` is the score that the base model alone was measured to have on the task most similar to the request; with
    the gain it is the expected reward. `weights` are the first digits of the digest of the adapter's weights; `made` is
    in seconds since 1970.
    """

    adapter: str | None
    gain: float
    level: float | None
    version: int
    weights: str | None = None
    made: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))

    @classmethod
    def of(cls, adapter: str | None, gain: float, level: float | None, version: int, weights: str) -> Self:
        """The token of a decision made now, by the digest of the `weights` that answer (empty: base)."""
        rounded = None if level is None else round(level, 4)
        return cls(adapter, round(gain, 4), rounded, version, weights[:_DIGITS] or None)

    def is_of(self, weights_digest: str) -> bool:
        """Whether these weights answered."""
        return bool(self.weights) and self.weights == weights_digest[:_DIGITS]

    def sign(self, key: bytes) -> str:
        """The token as text, signed with `key`."""
        payload = json.dumps([_FORMAT, *astuple(self)], separators=(",", ":")).encode()
        return f"{_encoded(payload)}.{_encoded(_signature(payload, key))}"

    @classmethod
    def read(cls, token: str) -> Self:
        """Read a token without checking its signature.

        Raises:
            OldTokenError: it has the first format.
            TokenError: it is no token.
        """
        try:
            payload = _decoded(token.partition(".")[0])
            if payload.startswith(b"{") and json.loads(payload).keys() == _FORMAT_1:
                raise OldTokenError("this decision token is of an older version of TraitRoute")
            return cls(*_PAYLOAD.validate_json(payload, strict=True)[1:])
        except (ValueError, RecursionError) as exc:
            raise TokenError("this is no decision token") from exc

    @classmethod
    def verify(cls, token: str, key: bytes) -> Self:
        """Read a token that was signed with `key`.

        Raises:
            TokenError: it was not.
        """
        try:
            payload, signature = map(_decoded, token.split("."))
        except ValueError as exc:
            raise TokenError("this is no decision token") from exc
        # Base64 has several spellings of the same bytes; only the one that was given out counts.
        same = token == f"{_encoded(payload)}.{_encoded(signature)}"
        if not same or not hmac.compare_digest(_signature(payload, key), signature):
            raise TokenError("no server of this registry made this decision token")
        return cls.read(token)


def signing_key(profile: StoredProfile) -> bytes:
    """The key that signs the decisions of a profile.

    It is derived from the profile's bytes, which every server of the registry reads and no client is shown. So any
    replica can verify a decision of any other, and no secret has to be distributed.
    """
    return hashlib.sha256(b"traitroute decision token\0" + profile.data).digest()


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
) -> FeedbackKept:
    """Store the outcome of a decision in the registry at `location`, through a connection of its own; blocks.

    `newest` is the version and signing key of the newest profile, `reporter` the digest of the API key (None: no key).

    Raises:
        RefusedError: no server of this registry made the decision, its outcome is known already, it is too old, or
            other weights than today's answered.
        TooManyError: the hourly limit of this API key is reached.
        UnavailableError: the registry cannot be written.
    """
    try:
        with Registry.open(location) as registry:
            decision = _verified(request.decision, registry, newest)
            _check_age(decision, limits)
            _check_weights(decision, registry)
            registry.put_feedback(
                Feedback(
                    token=request.decision,
                    adapter=decision.adapter,
                    predicted_gain=decision.gain,
                    profile_version=decision.version,
                    reward=request.reward,
                    created_at=datetime.fromtimestamp(decision.made, UTC),
                    rewarded_at=datetime.now(UTC),
                    reporter=registry.reporter(reporter or platform.node().encode()),
                ),
                hourly=limits.hourly,
            )
    except ConflictError as exc:
        raise _refused(
            409, "the outcome of this decision was reported before, and is kept: report each decision's once"
        ) from exc
    except TooManyError:
        raise
    except (DatabaseError, RegistryError) as exc:
        _logger.warning("traitroute: feedback is not kept: %s", exc)
        raise UnavailableError("the registry takes no feedback now: try again later") from exc
    return FeedbackKept(skill=decision.adapter or "base", profile_version=decision.version, reward=request.reward)


def _verified(token: str, registry: Registry, newest: tuple[int, bytes]) -> DecisionToken:
    try:
        version = DecisionToken.read(token).version
        return DecisionToken.verify(token, _key(version, registry, newest))
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


def _signature(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)[:16]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
