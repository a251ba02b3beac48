"""Summaries of profiles that nobody measured, for tests and benchmarks: right in shape, with the parts that matter
given.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sqlalchemy import select, update
from traitroute.adapters import (
    Estimates,
    FittedTraits,
    PairedOutcomes,
    ProfileSummary,
    Registry,
    Stability,
    TraitName,
)
from traitroute.adapters.registry.schema import profiles
from traitroute.profiling.traits.space import TraitSpace


def made_up_summary(adapters: Sequence[str] = (), tasks: Sequence[str] = (), **parts: Any) -> ProfileSummary:
    """A summary of adapters and tasks in which every score is 0, unless `parts` say otherwise."""
    shape = len(adapters), len(tasks)
    traits = parts.get("traits") or made_up_traits(np.zeros((1, len(tasks))))
    made_up = {
        "base_model": "made-up",
        "tasks": tuple(tasks),
        "adapters": tuple(adapters),
        "base": np.zeros(len(tasks)),
        "scores": np.zeros(shape),
        "trait_scores": np.zeros((len(adapters), len(traits))),
        "paired": PairedOutcomes.none(*shape),
        "estimated": Estimates.none(len(tasks)),
        "traits": traits,
        "cells": (),
        "weights": dict.fromkeys(adapters, "0" * 64),
    }
    return ProfileSummary(**made_up | parts)


def made_up_traits(loadings: ArrayLike, **parts: Any) -> FittedTraits:
    """Traits of these loadings (r, tasks), all above their null and found again in every resample."""
    loadings = np.asarray(loadings, float)
    r, tasks = loadings.shape
    made_up = {
        "n_traits": r,
        "loadings": loadings,
        "explained_variance": np.full(r, 1 / max(r, 1)),
        "null": np.zeros(r),
        "null_mean": np.zeros(r),
        "p_values": np.zeros(r),
        "gain_means": np.zeros(tasks),
        "gain_scales": np.ones(tasks),
        "names": [TraitName(name=f"component {i + 1}", evidence="It was made up.") for i in range(r)],
        "by_examples": steady(loadings),
        "by_adapters": steady(loadings),
    }
    return FittedTraits(**made_up | parts)


def traits_of(space: TraitSpace, **parts: Any) -> FittedTraits:
    """A fitted trait space, with names and stability made up."""
    fitted = {
        "scaling": space.scaling,
        "n_traits": space.n_traits_,
        "explained_variance": space.explained_variance_ratio_,
        "null": space.null_,
        "null_mean": space.null_mean_,
        "p_values": space.p_values_,
        "gain_means": space.mean_,
        "gain_scales": space.scale_,
    }
    return made_up_traits(space.components_, **fitted | parts)


def steady(loadings: ArrayLike, **parts: Any) -> Stability:
    """The stability of loadings (r, tasks) that every resample finds again."""
    loadings = np.asarray(loadings, float)
    ones = np.ones(len(loadings))
    made_up = {
        "median": ones,
        "low": ones,
        "loading_low": loadings,
        "loading_high": loadings,
        "sign_share": np.ones_like(loadings),
        "chance": 0.4,
        "n_bootstrap": 200,
    }
    return Stability(**made_up | parts)


def damage_summary(registry: Registry, version: int, **parts: Any) -> None:
    """Store other parts in a summary, behind the back of whoever checks them; None removes one."""
    with registry._revising() as connection:
        of_version = profiles.c.version == version
        stored = connection.execute(select(profiles.c.summary).where(of_version)).scalar_one() | parts
        damaged = {name: part for name, part in stored.items() if part is not None}
        connection.execute(update(profiles).where(of_version).values(summary=damaged))
