"""Skill cards: what is known of one adapter, as JSON, as Markdown, and as the Hub's model card (README.md).

The model card's metadata equals what `huggingface_hub.ModelCardData` writes, which a test compares; writing it here
takes no more than YAML.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from ...adapters import Adapter, TrainingNote
from ..profile_snapshot import ProfileSnapshot
from ..proof import Proof
from .models import Applied, MeasuredGain, Merging, SkillCard, SkillSummary, SourceData
from .traits import skill_traits

BEST = 3
"""How many of its best tasks a skill is listed with."""


def skill_summary(
    snapshot: ProfileSnapshot, adapter: Adapter, loaded: bool | None, proof: Proof | None = None
) -> SkillSummary:
    """A skill's entry in the list of skills."""
    measured = snapshot.measured
    return SkillSummary(
        name=adapter.name,
        state=adapter.state.value,
        source_task=adapter.source_task,
        tags=adapter.tags,
        loaded=loaded,
        effect=adapter.effect,
        applied=Applied.of(proof),
        mean_gain=measured.mean_gain(adapter.name),
        best_tasks=measured.best(adapter.name, BEST),
        side_effects=measured.side_effects(adapter.name),
    )


def skill_card(
    snapshot: ProfileSnapshot, adapter: Adapter, loaded: bool | None, proof: Proof | None = None
) -> SkillCard:
    """All that is known of a skill."""
    note = snapshot.training.get(adapter.name, TrainingNote())
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
        datasets=note.datasets,
        merged=Merging.of(note.composite),
        loaded=loaded,
        effect=adapter.effect,
        applied=Applied.of(proof),
        profile_version=snapshot.version,
        traits=skill_traits(snapshot, adapter.name),
        gains=snapshot.measured.row(adapter.name),
        side_effects=snapshot.measured.side_effects(adapter.name),
        everyday_loss=snapshot.everyday.get(adapter.name),
    )


def card_markdown(card: SkillCard) -> str:
    """The card as Markdown, for people and for agents that read text."""
    parts = [f"# {card.name}", _about(card)]
    if card.side_effects:
        lost = ", ".join(f"{gain.task} ({gain.gain:+.2f})" for gain in card.side_effects)
        parts.append(f"**Side effects:** on {lost} it surely loses against the base model.")
    if card.gains:
        parts += ["## Measured gains over the base model", _gains(card.gains)]
    if card.traits:
        rows = [(t.name, f"{t.score:+.2f}", "yes" if t.trait else "no") for t in card.traits]
        parts += ["## Traits", _table(("component", "score", "above the null"), rows)]
    return "\n\n".join(parts) + "\n"


def model_card(card: SkillCard) -> str:
    """A README.md to be pushed with the adapter's weights."""
    described = yaml.safe_dump(metadata(card), sort_keys=False, allow_unicode=True)
    return f"---\n{described}---\n\n{card_markdown(card)}"


def metadata(card: SkillCard) -> dict[str, Any]:
    """The metadata that the Hub reads: base model, licence, tags, and each measured score as a result."""
    data: dict[str, Any] = {"base_model": card.base_model, "library_name": "peft"}
    if card.licence is not None:
        data |= _licence(card.licence)
    if card.datasets:
        data["datasets"] = list(card.datasets)
    data["tags"] = list(dict.fromkeys(["traitroute", card.method, *(["merge"] if card.merged else []), *card.tags]))
    if card.gains:
        results = [_result(gain) for gain in card.gains]
        data["model-index"] = [{"name": card.name, "results": results}]
    return data


def _source(task: str | None, tasks: Mapping[str, Mapping[str, Any]]) -> SourceData | None:
    """What the registry knows of the data of a task."""
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


def _about(card: SkillCard) -> str:
    source = card.source
    facts = {
        "base model": card.base_model,
        "adapter": f"{card.method}, rank {card.rank}, on {', '.join(card.target_modules)}",
        "trained on": source and _data(source.task, source.rows, source.labels),
        "trained on, by its model card": ", ".join(card.datasets),
        "merged": card.merged and _merging(card.merged),
        "admitted since": card.merged and _admission(card.merged),
        "tags": ", ".join(card.tags),
        "licence": card.licence or "not stated",
        "from": card.uri,
        "version": f"{card.version}, of {card.created_at[:10]}; weights sha256 {card.weights_digest[:12]}",
        "state": card.state,
        "measured by": f"profile {card.profile_version}",
        "changes the probe by": card.effect is not None and f"{card.effect:.3g} nats when measured",
        "loses on everyday requests": card.everyday_loss is not None and f"{card.everyday_loss:.2f}",
        "on this server": card.applied and f"{card.applied.verdict}: {card.applied.reason}",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _merging(merged: Merging) -> str:
    parts = ", ".join(f"{part.weight:.2f} of {part.name} ({part.weights_digest[:12]})" for part in merged.parts)
    density = "" if merged.density is None else f", density {merged.density:g}, seed {merged.seed}"
    return f"by {merged.method} to rank {merged.rank}{density}: {parts}"


def _admission(merged: Merging) -> str:
    return (
        f"it is better than {merged.better_than} on {', '.join(merged.tasks)} by {merged.lead:+.2f}, at least "
        f"{merged.low:+.2f}: on {merged.examples} examples that chose nothing, with {merged.tried} composites tried"
    )


def _data(task: str, rows: int | None, labels: Sequence[str]) -> str:
    count = f", {rows} rows" if rows else ""
    named = f", answers {', '.join(labels)}" if labels else ""
    return f"{task}{count}{named}"


def _gains(gains: Iterable[MeasuredGain]) -> str:
    rows = [
        (
            gain.task,
            f"{gain.base:.2f}",
            f"{gain.score:.2f}",
            f"{gain.gain:+.2f}",
            "estimated" if gain.low is None else f"{gain.low:+.2f} to {gain.high:+.2f}",
            str(gain.examples or ""),
        )
        for gain in sorted(gains, key=lambda gain: -gain.gain)
    ]
    return _table(("task", "base", "score", "gain", "95% interval", "examples"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def _licence(licence: str) -> dict[str, str]:
    # The Hub knows short names of licences; any other goes under `license_name`.
    if re.fullmatch(r"[a-z0-9.+-]{2,40}", licence):
        return {"license": licence}
    return {"license": "other", "license_name": licence}


_RESULTS = {
    "strict": ("accuracy", "strictly correct"),
    "lenient": ("accuracy", "leniently correct"),
    "metric": ("score", "mean score by the task's metric"),
}


def _result(gain: MeasuredGain) -> dict[str, Any]:
    kind, name = _RESULTS[gain.scored_by]
    metric = {"type": kind, "value": round(gain.score, 4), "name": f"{name} (base model: {gain.base:.4f})"}
    return {"task": {"type": "text-generation"}, "dataset": {"name": gain.task, "type": gain.task}, "metrics": [metric]}
