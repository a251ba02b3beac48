"""Join a measured row to the newest profile: its gains are projected onto the traits, and nothing else changes."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    routing = RoutingProfile.from_bytes(stored.data)
    routing = routing.with_adapter(adapter.name, scores, gains=gains)
    told = {
        "adapters": adapter.name,
        # Shown as a gain over the profile's base row, which it may not have been measured beside.
        "scores": (np.array(summary["base"]) + gains).tolist(),
        "trait_scores": scores.tolist(),
    }
    place = _place(summary["adapters"], adapter.name)
    rows = {
        key: [*summary[key][:place], value, *summary[key][place + 1 :]]
        for key, value in told.items()
    }
    cells = list(dict.fromkeys([*summary["cells"], *(c.key for c in row)]))
    return JoinedProfile(routing.to_bytes(), {**summary, **rows, "cells": cells})


def _place(names: Sequence[str], name: str) -> int:
    """Where a row goes: in the place of the one that its name has, else at the end."""
    return names.index(name) if name in names else len(names)


def _centre(summary: dict[str, Any]) -> dict[str, Any]:
    """Means and scales (tasks,) of the gains that the traits were fitted to; rows that join later do not move them."""
    if "gain_means" in summary:
        return {}
    fitted = np.array(summary["scores"]) - np.array(summary["base"])
    scales = task_scale(fitted, summary["scaling"])
    return {"gain_means": fitted.mean(axis=0).tolist(), "gain_scales": scales.tolist()}
