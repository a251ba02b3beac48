"""Length habits: whether what an adapter writes is as long as the base model's answers or as its source's.

The lengths of a source are those of its gold answers in the test split, counted with the base model's tokens in the
base model's own cell; training answers are drawn from the same data set, but their tokens are not kept.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..analysis.lengths import (
    QUANTILES,
    LengthHabit,
    LengthSummary,
    density,
    habit,
    length_grid,
    summarise,
    wasserstein,
)
from ..study import Study
from .drawing import BLUE, GREY, ORANGE, Array, heat_figure, panels, short_figure, short_name
from .section import Missing, Picture, Section, Table, counted, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Lengths:
    """Densities (points,) of an adapter's output lengths on the source tasks other than its own.

    Per unit of log1p(tokens) at `grid` (points,), beside those of the base model on the same prompts and
    of the source's gold answers.
    """

    grid: Array
    base: Array
    source: Array
    adapter: Array


@dataclass(frozen=True)
class LengthFindings:
    """Habits and distances to the target's gold answers (tokens) by adapter and source task.

    `outputs` holds the lengths written by adapter (None: the base model) and source task, `sources` those
    of each source's gold answers.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    habits: Mapping[tuple[str, str], LengthHabit]
    to_target: Mapping[tuple[str, str], float]
    outputs: Mapping[tuple[str | None, str], LengthSummary]
    sources: Mapping[str, LengthSummary]
    densities: Mapping[str, Lengths]

    @property
    def elsewhere(self) -> dict[tuple[str, str], LengthHabit]:
        """Habits on the source tasks that are not the adapter's own."""
        return {pair: habit for pair, habit in self.habits.items() if pair[0] != pair[1]}


def find_lengths(study: Study, *, n_resamples: int = 400, seed: int = 0) -> LengthFindings | Missing:
    """Place the output lengths of every adapter on every source task between base model and source."""
    adapters = study.require_sources("how long the answers are that adapters were taught")
    tasks = tuple(t for t in study.tasks if t in adapters)
    gold = {t: study.outcomes[None, t].target_tokens for t in tasks}
    limits = {t: study.tasks[t].max_tokens for t in tasks}
    pairs = [(a, t) for a in adapters for t in tasks]
    wrote = {(a, t): study.outcomes[a, t].output_tokens for a in (None, *adapters) for t in tasks}
    return LengthFindings(
        adapters=adapters,
        tasks=tasks,
        habits={
            (a, t): habit(wrote[None, t], gold[a], wrote[a, t], limit=limits[t], n_resamples=n_resamples, seed=seed)
            for a, t in pairs
        },
        to_target={(a, t): wasserstein(wrote[a, t], gold[t], limit=limits[t]) for a, t in pairs},
        outputs={(a, t): summarise(n, limit=limits[t]) for (a, t), n in wrote.items()},
        sources={t: summarise(n) for t, n in gold.items()},
        densities={a: _densities(a, tasks, wrote, gold[a]) for a in adapters},
    )


def _densities(
    adapter: str, tasks: tuple[str, ...], wrote: Mapping[tuple[str | None, str], NDArray], source: NDArray
) -> Lengths:
    others = [t for t in tasks if t != adapter] or list(tasks)
    by_adapter, by_base = (np.concatenate([wrote[name, t] for t in others]) for name in (adapter, None))
    grid = length_grid(by_adapter, by_base, source)
    return Lengths(grid, *(density(sample, grid) for sample in (by_base, source, by_adapter)))


_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000)


def draw_densities(findings: LengthFindings) -> "Figure":
    """A panel an adapter: what it writes elsewhere, beside base model and source."""
    figure, axes = panels(len(findings.adapters), columns=(5, 4), height=1.75)
    for each, adapter in zip(axes, findings.adapters, strict=True):
        lengths = findings.densities[adapter]
        at = np.log1p(lengths.grid)
        # One length alone is a spike of any height, so all curves get the same.
        source, base, wrote = (d / d.max() for d in (lengths.source, lengths.base, lengths.adapter))
        each.fill_between(at, source, color=ORANGE, alpha=0.18, linewidth=0)
        each.plot(at, source, ":", color=ORANGE, label="source's gold answers")
        each.plot(at, base, "--", color=GREY, label="base model, other tasks")
        each.plot(at, wrote, color=BLUE, linewidth=1.8, label="adapter, other tasks")
        each.set_title(short_name(adapter))
        ticks = [t for t in _TICKS if np.log1p(t) <= at[-1]]
        each.set_xticks(np.log1p(ticks), [str(t) for t in ticks])
        each.set_yticks([])
        each.spines["left"].set_visible(False)
    figure.supxlabel("tokens", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def draw_habits(findings: LengthFindings) -> "Figure":
    """Weight of the source in each adapter's lengths; struck through where it is no interpolation."""
    shape = (len(findings.adapters), len(findings.tasks))
    habits = [findings.habits[a, t] for a in findings.adapters for t in findings.tasks]
    weights = np.array([h.weight for h in habits]).reshape(shape)
    verdicts = np.array([h.verdict for h in habits]).reshape(shape)
    question_marks = np.where(verdicts == "undecided", "?", "")
    texts = np.char.add(np.vectorize(lambda w: short_figure(f"{w:.2f}"))(weights), question_marks)
    return heat_figure(
        weights,
        height=1.9 + 0.34 * shape[0],
        width=8.5,
        rows=findings.adapters,
        columns=findings.tasks,
        scale="0: base model's lengths, 1: source's",
        xlabel="answering",
        ylabel="adapter",
        limits=(0, 1),
        text=texts,
        hatched=verdicts == "neither",
    )[0]


_INTRO = (
    "The paper holds that an adapter's answers on other tasks lie in length between those of the base model "
    "and those it was trained on. Lengths are tokens without the end of the turn. A source's lengths are "
    "those of its gold answers in the test split; outputs and gold answers alike are cut at a task's limit."
)
_VERDICTS = ("between", "source", "base", "undecided", "neither")


def length_section(findings: LengthFindings) -> Section:
    """Densities and weights of the habits."""
    pictures = (
        Picture("length_densities", "How long the answers are", draw_densities(findings), density_caption(findings),
                "Density curves of answer lengths, a panel an adapter; quantiles are in the table of lengths."),
        Picture("habit_weights", "Between base model and source", draw_habits(findings), habit_caption(findings),
                "Heat map of the source's weight in the lengths of every adapter on every source task. "
                f"{verdict_sentence(findings)}"),
    )  # fmt: skip
    return Section("lengths", "Length habits", _INTRO, pictures, (_habits(findings), _lengths(findings)))


def verdict_sentence(findings: LengthFindings) -> str:
    """How many habits elsewhere got each verdict."""
    verdicts = Counter(h.verdict for h in findings.elsewhere.values())
    if not verdicts:
        return "There is one source only, so no other source task to test on."
    counts = ", ".join(f"“{word}” in {verdicts[word]}" for word in _VERDICTS)
    return f"Of {counted(sum(verdicts.values()), 'cell')} off an adapter's own task, the verdict is {counts}."


def density_caption(findings: LengthFindings) -> str:
    """How far adapters' lengths lie from base and source, and how much was cut."""
    elsewhere = list(findings.elsewhere.values())
    cut = float(np.mean([s.cut for (name, _), s in findings.outputs.items() if name is None]))
    cut_adapters = float(np.mean([s.cut for (name, _), s in findings.outputs.items() if name]))
    nearer = sum(h.to_source < h.to_base for h in elsewhere)
    return (
        "Answers on the source tasks that are not the adapter's own; all curves are drawn equally high. In "
        f"{nearer or 'none'} of {counted(len(elsewhere), 'cell')} the adapter's lengths are nearer to its source's "
        f"than to the base model's (Wasserstein distance; no test). {percent(cut)} of the base model's and "
        f"{percent(cut_adapters)} of the adapters' answers reach the token limit, so lengths beyond it are not seen."
    )


def habit_caption(findings: LengthFindings) -> str:
    """The verdicts, the typical weight, and what they rest on."""
    weights = [h.weight for h in findings.elsewhere.values() if not np.isnan(h.weight)]
    typical = f"The median weight of the source there is {np.median(weights):.2f}. " if weights else ""
    return (
        f"{verdict_sentence(findings)} {typical}Struck-through cells (“neither”) fit no interpolation of base and "
        "source (p < 0.05, each cell by itself, so about one in twenty would be struck by chance); a question mark is "
        "“undecided”: the interval holds both ends, or base and source are alike, as where both are cut at the limit. "
        "Bounds are in the table of habits."
    )


def _habits(findings: LengthFindings) -> Table:
    rows = [
        {
            "adapter": adapter,
            "task": task,
            **{k: getattr(h, k) for k in ("weight", "low", "high", "verdict")},
            "p_interpolates": h.p,
            **{k: getattr(h, k) for k in ("to_base", "to_source")},
            "to_target": findings.to_target[adapter, task],
            **{k: getattr(h, k) for k in ("to_best", "base_to_source", "cut_base", "cut_source", "cut_adapter")},
        }
        for (adapter, task), h in findings.habits.items()
    ]
    return Table("length_habits", "Length habits; distances in tokens (Wasserstein)", rows)


def _lengths(findings: LengthFindings) -> Table:
    rows = [_row("gold answers", task, s) for task, s in findings.sources.items()]
    rows += [_row(name or "base model", task, s) for (name, task), s in findings.outputs.items()]
    return Table("lengths", "Lengths in tokens", rows)


def _row(writer: str, task: str, s: LengthSummary) -> dict:
    quantiles = {f"quantile_{u:g}": v for u, v in zip(QUANTILES, s.quantiles, strict=True)}
    return {"writer": writer, "task": task, "answers": s.count, "mean": s.mean, "sd": s.sd, **quantiles, "cut": s.cut}
