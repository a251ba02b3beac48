"""The section of length habits."""

from collections import Counter

import numpy as np

from ...analysis.lengths import QUANTILES, LengthSummary
from ...findings import LengthFindings
from ..figures.lengths import habit_weights, length_densities
from ..section import Picture, Section
from ..tables import Table
from ..wording import counted, percent

_INTRO = (
    "The paper holds that an adapter's answers on other tasks lie in length between those of the base model "
    "and those it was trained on. Lengths are tokens without the end of the turn. A source's lengths are "
    "those of its gold answers in the test split; outputs and gold answers alike are cut at a task's limit."
)
_VERDICTS = ("between", "source", "base", "undecided", "neither")


def length_section(found: LengthFindings) -> Section:
    """Densities and weights of the habits."""
    pictures = (
        Picture("length_densities", "How long the answers are", length_densities(found), density_caption(found),
                "Density curves of answer lengths, a panel an adapter; quantiles are in the table of lengths."),
        Picture("habit_weights", "Between base model and source", habit_weights(found), habit_caption(found),
                f"Heat map of the source's weight in the lengths of every adapter on every source task. {verdict_sentence(found)}"),
    )  # fmt: skip
    return Section("lengths", "Length habits", _INTRO, pictures, (_habits(found), _lengths(found)))


def verdict_sentence(found: LengthFindings) -> str:
    """How many habits elsewhere got each verdict."""
    verdicts = Counter(h.verdict for h in found.elsewhere.values())
    if not verdicts:
        return "There is one source only, so no other source task to test on."
    counts = ", ".join(f"“{word}” in {verdicts[word]}" for word in _VERDICTS)
    return f"Of {counted(sum(verdicts.values()), 'cell')} off an adapter's own task, the verdict is {counts}."


def density_caption(found: LengthFindings) -> str:
    """How far adapters' lengths lie from base and source, and how much was cut."""
    elsewhere = list(found.elsewhere.values())
    cut = float(np.mean([s.cut for (name, _), s in found.outputs.items() if name is None]))
    cut_adapters = float(np.mean([s.cut for (name, _), s in found.outputs.items() if name]))
    nearer = sum(h.to_source < h.to_base for h in elsewhere)
    return (
        "Answers on the source tasks that are not the adapter's own; all curves are drawn equally high. "
        f"In {nearer or 'none'} of {counted(len(elsewhere), 'cell')} the adapter's lengths are nearer to its source's than "
        "to the base model's (Wasserstein distance; no test). "
        f"{percent(cut)} of the base model's and {percent(cut_adapters)} of the adapters' answers reach the token limit, "
        "so lengths beyond it are not seen."
    )


def habit_caption(found: LengthFindings) -> str:
    """The verdicts, the typical weight, and what they rest on."""
    weights = [h.weight for h in found.elsewhere.values() if not np.isnan(h.weight)]
    typical = f"The median weight of the source there is {np.median(weights):.2f}. " if weights else ""
    return (
        f"{verdict_sentence(found)} {typical}Struck-through cells (“neither”) fit no interpolation of base and source "
        "(p < 0.05, each cell by itself, so about one in twenty would be struck by chance); a question mark is “undecided”: the "
        "interval holds both ends, or base and source are alike, as where both are cut at the limit. Bounds are in the table of habits."
    )


def _habits(found: LengthFindings) -> Table:
    rows = [
        {
            "adapter": adapter,
            "task": task,
            "weight": h.weight,
            "low": h.low,
            "high": h.high,
            "verdict": h.verdict,
            "p_interpolates": h.p,
            "to_base": h.to_base,
            "to_source": h.to_source,
            "to_target": found.to_target[adapter, task],
            "to_best": h.to_best,
            "base_to_source": h.base_to_source,
            "cut_base": h.cut_base,
            "cut_source": h.cut_source,
            "cut_adapter": h.cut_adapter,
        }
        for (adapter, task), h in found.habits.items()
    ]
    return Table("length_habits", "Length habits; distances in tokens (Wasserstein)", rows)


def _lengths(found: LengthFindings) -> Table:
    rows = [_row("gold answers", task, s) for task, s in found.sources.items()]
    rows += [_row(name or "base model", task, s) for (name, task), s in found.outputs.items()]
    return Table("lengths", "Lengths in tokens", rows)


def _row(writer: str, task: str, s: LengthSummary) -> dict:
    quantiles = {f"quantile_{u:g}": v for u, v in zip(QUANTILES, s.quantiles, strict=True)}
    return {
        "writer": writer,
        "task": task,
        "answers": s.count,
        "mean": s.mean,
        "sd": s.sd,
        **quantiles,
        "cut": s.cut,
    }
