"""The feedback that a profile can learn from: that on decisions which its own predictions stand for."""

from contextlib import suppress
from datetime import datetime

from ...adapters import Registry
from ...router import RoutingProfile
from .recalibration import Rewarded
from .token import DecisionToken, TokenError


def read_rewards(registry: Registry, since: datetime) -> list[Rewarded]:
    """The rewarded decisions made `since` with the newest profile, or with one whose predictions it has kept.

    Decisions by weights that were replaced are left out, and so are those whose request resembled no known task.
    """
    corrected = {
        version: RoutingProfile.from_bytes(registry.profile(version).data).corrections for version in registry.lineage()
    }
    weights = {adapter.name: adapter.weights_digest for adapter in registry.adapters()}
    found = []
    for told in registry.feedback(since=since):
        made = _decision(told.token)
        if made is None or made.level is None or told.reward is None:
            continue
        if told.profile_version not in corrected:
            continue
        learnt = 0.0
        if told.adapter is not None:
            if not made.is_of(weights.get(told.adapter, "")):
                continue
            learnt = corrected[told.profile_version].get(told.adapter, 0.0)
        expected = made.level + told.predicted_gain - learnt
        found.append(Rewarded(told.adapter, expected, told.reward, told.reporter))
    return found


def _decision(token: str) -> DecisionToken | None:
    # Feedback that came some other way has no token of ours, and says nothing of what was to be expected.
    with suppress(TokenError):
        return DecisionToken.read(token)
    return None
