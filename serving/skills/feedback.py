"""How decisions turned out, kept in the registry: a token, names and numbers, never text.

The token brings along what was decided, so no server has to remember its decisions, and any replica takes feedback for
those of any other. It is the row's key, so each decision is rewarded once.
"""

import logging
from datetime import UTC, datetime

from ...adapters import (
    ConflictError,
    DatabaseError,
    Feedback,
    Registry,
    RegistryError,
    RunError,
)
from ..routing.refusal import RefusedError
from .models import FeedbackKept, FeedbackRequest
from .snapshot import Snapshot, signing_key
from .token import DecisionToken, TokenError

_logger = logging.getLogger(__name__)


class UnkeptError(RunError):
    """The registry takes no feedback now."""


def keep_feedback(told: FeedbackRequest, snapshot: Snapshot) -> FeedbackKept:
    """Keep what was told of a decision, through a handle that is opened for it; blocks.

    Raises:
        RefusedError: no server of this registry made the decision, or it was told of before.
        UnkeptError: the registry cannot be written.
    """
    try:
        with Registry.open(snapshot.location) as registry:
            made = _verified(told.decision, registry, snapshot)
            registry.put_feedback(
                Feedback(
                    token=told.decision,
                    adapter=made.adapter,
                    predicted_gain=made.gain,
                    profile_version=made.version,
                    reward=told.reward,
                    rewarded_at=datetime.now(UTC),
                )
            )
    except ConflictError as exc:
        raise _told_before() from exc
    except (DatabaseError, RegistryError) as exc:
        _logger.warning("traitroute: feedback is not kept: %s", exc)
        raise UnkeptError("the registry takes no feedback now: try again later") from exc
    return FeedbackKept(
        skill=made.adapter or "base", profile_version=made.version, reward=told.reward
    )


def _verified(token: str, registry: Registry, snapshot: Snapshot) -> DecisionToken:
    try:
        version = DecisionToken.read(token).version
        return DecisionToken.verify(token, _key(version, registry, snapshot))
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


def _told_before() -> RefusedError:
    message = "the outcome of this decision was told before, and is kept: tell each decision's once"
    return RefusedError(message, status=409, param="decision")
