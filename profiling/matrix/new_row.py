"""A measured row joins the profile: its gains are projected onto the traits, and nothing else changes.

Traits, demand and every other row stay as they were fitted, so no decision changes but toward the new adapter, or away from
what it was before.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...adapters import InputError, StoredProfile
from ...router import RoutingProfile, TrainingRows
from ..traits.space import task_scale

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NewRow:
    """The row of one adapter over `tasks`: `gains` and their standard `errors`, (tasks,), 0 for tasks measured in full.

    `examples` (tasks,) is how many were measured, `cells` are their keys; `replaced` are keys of earlier whole cells of this name.
    `paired` counts examples that only the adapter, or only base, got right, of rows measured in full.
    """

    adapter: str
    weights_digest: str
    tasks: tuple[str, ...]
    gains: Array
    errors: Array
    examples: NDArray[np.intp]
    cells: tuple[str, ...]
    replaced: frozenset[str] = frozenset()
    paired: Mapping[str, list[int]] = field(default_factory=dict)
    training: TrainingRows | None = None

    @property
    def whole(self) -> bool:
        """Whether every example was measured."""
        return not self.errors.any() and bool(self.paired)


@dataclass(frozen=True)
class JoinedProfile:
    """A profile with a row more, as the registry keeps it."""

    data: bytes
    summary: dict[str, Any]


def join(stored: StoredProfile, row: NewRow) -> JoinedProfile:
    """The profile `stored` with `row`, in the place of one that its adapter has already.

    Raises:
        InputError: the profile has other tasks than the row.
    """
    if list(row.tasks) != list(stored.summary["tasks"]):
        raise InputError(
            f"the row of {row.adapter} was measured on other tasks than those of profile version "
            f"{stored.version}: it was fitted anew meanwhile, so measure again"
        )
    summary = {**stored.summary, **_centre(stored.summary)}
    scores = project(summary, row.gains)
    routing = RoutingProfile.from_bytes(stored.data).with_adapter(row.adapter, scores, row.training, gains=row.gains)
    # Shown as gains over the profile's base row, which another engine may have measured.
    shown = (np.array(summary["base"]) + row.gains).tolist()
    place = _place(summary["adapters"], row.adapter)
    told = {
        "adapters": _put(summary["adapters"], place, row.adapter),
        "scores": _put(summary["scores"], place, shown),
        "trait_scores": _put(summary["trait_scores"], place, scores.tolist()),
        **_cells(summary, row),
        **_paired(summary, row, place),
        "weights": {**summary.get("weights", {}), row.adapter: row.weights_digest},
        "joined": list(dict.fromkeys([*summary.get("joined", []), row.adapter])),
    }
    return JoinedProfile(routing.to_bytes(), {**summary, **told})


def without(stored: StoredProfile, names: Collection[str], cells: Collection[str]) -> JoinedProfile:
    """The profile without the rows of some adapters; `cells` are keys of their whole cells."""
    summary = stored.summary
    kept = [i for i, name in enumerate(summary["adapters"]) if name not in names]
    routing = RoutingProfile.from_bytes(stored.data)
    rows = [i for i, name in enumerate(routing.adapters) if name not in names]
    told: dict[str, Any] = {part: [summary[part][i] for i in kept] for part in ("adapters", "scores", "trait_scores")}
    told["cells"] = [key for key in summary["cells"] if key not in cells]
    for part in ("weights", "estimated"):
        told[part] = {n: v for n, v in summary.get(part, {}).items() if n not in names}
    told["joined"] = [name for name in summary.get("joined", []) if name not in names]
    if "paired" in summary:
        told["paired"] = {k: [v[i] for i in kept] for k, v in summary["paired"].items()}
    told |= _centre(summary)
    return JoinedProfile(routing.take(rows).to_bytes(), {**summary, **told})


def project(summary: Mapping[str, Any], gains: Array) -> Array:
    """Trait scores (r,) of gains (tasks,), or of rows of them, in the traits that `summary` holds."""
    means, scales = centre(summary)
    return (gains - means) / scales @ np.array(summary["loadings"]).T


def centre(summary: Mapping[str, Any]) -> tuple[Array, Array]:
    """Means and scales (tasks,) of the gains that the traits were fitted to; rows that join later do not move them."""
    if "gain_means" in summary:
        return np.array(summary["gain_means"]), np.array(summary["gain_scales"])
    # A profile of before they were kept, which no row has joined yet.
    fitted = np.array(summary["scores"]) - np.array(summary["base"])
    return fitted.mean(axis=0), task_scale(fitted, summary["scaling"])


def _centre(summary: Mapping[str, Any]) -> dict[str, Any]:
    means, scales = centre(summary)
    return {"gain_means": means.tolist(), "gain_scales": scales.tolist()}


def _cells(summary: Mapping[str, Any], row: NewRow) -> dict[str, Any]:
    """Whole rows are the profile's cells; of estimates is kept how sure they are."""
    kept = [key for key in summary["cells"] if key not in row.replaced]
    estimated = {n: e for n, e in summary.get("estimated", {}).items() if n != row.adapter}
    if row.whole:
        return {"cells": list(dict.fromkeys([*kept, *row.cells])), "estimated": estimated}
    estimated[row.adapter] = {
        "errors": row.errors.tolist(),
        "examples": row.examples.tolist(),
    }
    return {"cells": kept, "estimated": estimated}


def _paired(summary: Mapping[str, Any], row: NewRow, place: int) -> dict[str, Any]:
    if "paired" not in summary:
        return {}
    nothing = [0] * len(row.tasks)
    return {
        "paired": {part: _put(rows, place, row.paired.get(part, nothing)) for part, rows in summary["paired"].items()}
    }


def _place(adapters: list[str], name: str) -> int:
    return adapters.index(name) if name in adapters else len(adapters)


def _put(rows: list[Any], place: int, row: Any) -> list[Any]:
    return [*rows[:place], row, *rows[place + 1 :]]
