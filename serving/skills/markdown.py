"""A skill card as Markdown, for people and for agents that read text."""

from collections.abc import Iterable, Sequence

from .models import MeasuredGain, SkillCard


def card_markdown(card: SkillCard) -> str:
    """The card as Markdown: what the skill is, gains, side effects and traits."""
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


def _about(card: SkillCard) -> str:
    source = card.source
    facts = {
        "base model": card.base_model,
        "adapter": f"{card.method}, rank {card.rank}, on {', '.join(card.target_modules)}",
        "trained on": source and _data(source.task, source.rows, source.labels),
        "tags": ", ".join(card.tags),
        "licence": card.licence or "not stated",
        "from": card.uri,
        "version": f"{card.version}, of {card.created_at[:10]}; weights sha256 {card.weights_digest[:12]}",
        "state": card.state,
        "measured by": f"profile {card.profile_version}",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


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
