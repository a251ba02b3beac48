"""The feedback that a profile can learn from: that on decisions which its own predictions stand for."""

from contextlib import suppress
from datetime import datetime

from ...adapters import Registry
from ...router import RoutingProfile
from .recalibration import Rewarded
from .token import DecisionToken, TokenError


def read_rewards(registry: Registry, since: datetime) -> list[Rewarded]:
    """The rewarded decisions made `since` with the newest profile, or with one whose predictions it has kept.

    Decisions for weights that were replaced are left out, and so are those whose request resembled no known task.
    """
    corrected = {
        version: RoutingProfile.from_bytes(registry.profile(version).data).corrections
        for version in registry.lineage()
    }
    made = {adapter.name: adapter.created_at for adapter in registry.adapters()}
    found = []
    for told in registry.feedback(since=since):
        level = _level(told.token)
        if told.profile_version not in corrected or told.reward is None or level is None:
            continue
        learnt = 0.0
        if told.adapter is not None:
            if told.adapter not in made or told.created_at < made[told.adapter]:
                continue
            learnt = corrected[told.profile_version].get(told.adapter, 0.0)
        found.append(Rewarded(told.adapter, level + told.predicted_gain - learnt, told.reward))
    return found


def _level(token: str) -> float | None:
    # Feedback that came some other way has no token of ours, and says nothing of what was to be expected.
    with suppress(TokenError):
        return DecisionToken.read(token).level
    return None
