"""Join a measured row to the newest profile: its gains are projected onto the traits, and nothing else changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...adapters import Adapter, Cell, InputError, StoredProfile
from ...router import RoutingProfile
from ..traits import task_scale


@dataclass(frozen=True)
class JoinedProfile:
    """A profile with one more row, as the registry keeps it."""

    data: bytes
    summary: dict[str, Any]


def join_row(
    stored: StoredProfile, adapter: Adapter, row: Sequence[Cell], base_row: Sequence[Cell]
) -> JoinedProfile:
    """The profile `stored` with the row of `adapter`, in place of one that its name has already.

    Gains are against `base_row`, measured where the row was: another engine rounds otherwise.

    Raises:
        InputError: the profile has other tasks than the rows.
    """
    summary = stored.summary
    if [cell.task for cell in row] != summary["tasks"]:
        raise InputError(
            f"the row of {adapter.name} was measured on other tasks than those of profile version "
            f"{stored.version}: it was fitted anew meanwhile, so measure again"
        )
    gains = np.array([c.score - b.score for c, b in zip(row, base_row, strict=True)])
    summary = {**summary, **_centre(summary)}
    centred = (gains - summary["gain_means"]) / summary["gain_scales"]
    scores = centred @ np.array(summary["loadings"]).T
    routing = _without(RoutingProfile.from_bytes(stored.data), adapter.name)
    told = _without_row(summary, adapter.name)
    told["adapters"].append(adapter.name)
    # Shown as a gain over the profile's base row, which it may not have been measured beside.
    told["scores"].append((np.array(summary["base"]) + gains).tolist())
    told["trait_scores"].append(scores.tolist())
    told["cells"] = list(dict.fromkeys([*summary["cells"], *(c.key for c in row)]))
    return JoinedProfile(routing.with_adapter(adapter.name, scores).to_bytes(), told)


def _centre(summary: dict[str, Any]) -> dict[str, Any]:
    """Means and scales (tasks,) of the gains that the traits were fitted to; rows that join later do not move them."""
    if "gain_means" in summary:
        return {}
    fitted = np.array(summary["scores"]) - np.array(summary["base"])
    scales = task_scale(fitted, summary["scaling"])
    return {"gain_means": fitted.mean(axis=0).tolist(), "gain_scales": scales.tolist()}


def _without(routing: RoutingProfile, name: str) -> RoutingProfile:
    if name not in routing.adapters:
        return routing
    kept = [i for i, other in enumerate(routing.adapters) if other != name]
    return replace(
        routing,
        adapters=tuple(routing.adapters[i] for i in kept),
        trait_scores=routing.trait_scores[kept],
        homes=routing.homes.take(kept),
    )


def _without_row(summary: dict[str, Any], name: str) -> dict[str, Any]:
    kept = [i for i, other in enumerate(summary["adapters"]) if other != name]
    rows = {k: [summary[k][i] for i in kept] for k in ("adapters", "scores", "trait_scores")}
    return {**summary, **rows}
