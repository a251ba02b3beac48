"""Skill cards: all that is known of one adapter, or the short of it."""

from collections.abc import Mapping
from typing import Any

from ...adapters import Adapter
from .models import SkillCard, SkillSummary, SourceData
from .snapshot import Snapshot
from .traits import skill_traits

BEST = 3
"""So many of its best tasks a skill is listed with."""


def skill_summary(snapshot: Snapshot, adapter: Adapter, loaded: bool | None) -> SkillSummary:
    """A skill for the list."""
    measured = snapshot.measured
    return SkillSummary(
        name=adapter.name,
        state=adapter.state.value,
        source_task=adapter.source_task,
        tags=adapter.tags,
        loaded=loaded,
        mean_gain=measured.mean_gain(adapter.name),
        best_tasks=measured.best(adapter.name, BEST),
        side_effects=measured.side_effects(adapter.name),
    )


def skill_card(snapshot: Snapshot, adapter: Adapter, loaded: bool | None) -> SkillCard:
    """The card of a skill."""
    return SkillCard(
        name=adapter.name,
        state=adapter.state.value,
        tags=adapter.tags,
        base_model=adapter.base_model,
        base_digest=adapter.base_digest,
        weights_digest=adapter.weights_digest,
        method=adapter.method,
        rank=adapter.rank,
        target_modules=adapter.target_modules,
        version=adapter.version,
        created_at=adapter.created_at.isoformat(),
        uri=adapter.uri,
        licence=adapter.licence,
        source=_source(adapter.source_task, snapshot.tasks),
        loaded=loaded,
        profile_version=snapshot.version,
        traits=skill_traits(snapshot.summary, adapter.name),
        gains=snapshot.measured.row(adapter.name),
        side_effects=snapshot.measured.side_effects(adapter.name),
    )


def _source(task: str | None, tasks: Mapping[str, Mapping[str, Any]]) -> SourceData | None:
    """What the registry knows of a task's data, if it knows the task."""
    if task is None:
        return None
    spec = tasks.get(task, {})
    return SourceData(
        task=task,
        rows=spec.get("train"),
        metric=spec.get("metric"),
        labels=tuple(spec.get("labels") or ()),
        prompt=spec.get("prompt"),
    )
