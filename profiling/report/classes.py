"""Class habits: how even the classes of the sources are, and which classes an adapter then prefers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..analysis.classes import ClassSummary, Confusion, PriorShift, confusion, prior_shift, summarise
from ..statistics.significance import discoveries
from ..study import Study
from .corpus import Corpus
from .drawing import BLUE, GREY, SERIES, panels, share_colours, short_name
from .section import Missing, Picture, Section, Table, counted, listed, p_value, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ClassFindings:
    """`sources`: classes trained on, of adapters and of ablations. By adapter (None: base) and label task:
    `confusions`, `shifts`, and `q_values` of the shifts as one family.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    sources: Mapping[str, ClassSummary]
    confusions: Mapping[tuple[str | None, str], Confusion]
    shifts: Mapping[tuple[str, str], PriorShift]
    q_values: Mapping[tuple[str, str], float]
    q: float = 0.05

    @property
    def moved(self) -> list[tuple[str, str]]:
        """The cells whose predicted classes differ from the base model's, at the rate `q`."""
        return [pair for pair, value in self.q_values.items() if value <= self.q]


def find_classes(study: Study, corpus: Corpus, *, n_resamples: int = 2000, seed: int = 0) -> ClassFindings | Missing:
    """Set predicted against true classes on every label task.

    Raises:
        InputError: the data is not where it was, or not what was measured.
    """
    tasks = [name for name, task in study.tasks.items() if task.labels]
    if not tasks:
        return Missing("no task of this profile has labels")
    true = {name: _true(study, corpus, name) for name in tasks}
    confusions, shifts = {}, {}
    for name in tasks:
        labels, base = study.tasks[name].labels, study.outcomes[None, name].predicted_label
        confusions[None, name] = confusion(true[name], base, labels)
        for adapter in study.adapters:
            predicted = study.outcomes[adapter, name].predicted_label
            confusions[adapter, name] = confusion(true[name], predicted, labels)
            shifts[adapter, name] = prior_shift(predicted, base, true[name], labels, n_resamples=n_resamples, seed=seed)
    values, _ = discoveries([s.p for s in shifts.values()])
    return ClassFindings(
        adapters=study.adapters,
        tasks=tuple(tasks),
        sources=_training_classes(study),
        confusions=confusions,
        shifts=shifts,
        q_values=dict(zip(shifts, map(float, values), strict=True)),
    )


def _true(study: Study, corpus: Corpus, task: str) -> NDArray[np.int64]:
    labels = study.tasks[task].labels
    return np.array([labels.index(e.answer) for e in corpus.test_examples(task)], dtype=np.int64)


def _training_classes(study: Study) -> dict[str, ClassSummary]:
    """Training classes of every adapter and ablation whose source has labels."""
    origins = {a: a for a in study.sources} | {a.name: a.of for a in study.ablations.values()}
    summaries = {}
    for name, source in origins.items():
        if labels := study.tasks[source].labels:
            answers = [labels.index(e.answer) for e in study.training_set(name).examples]
            summaries[name] = summarise(answers, labels)
    return summaries


MOST_LABELS = 6
"""Tasks with more labels are in the tables only."""


def small_tasks(findings: ClassFindings) -> list[str]:
    """Tasks with few enough labels to be drawn."""
    return [t for t in findings.tasks if len(findings.confusions[None, t].labels) <= MOST_LABELS]


def draw_confusions(findings: ClassFindings, task: str) -> "Figure":
    """Confusion matrices of the base model and every adapter on one task, in percent of the true class."""
    names = (None, *findings.adapters)
    labels = findings.confusions[None, task].labels
    columns = [*(short_name(label, 14) for label in labels), "none"]
    figure, axes = panels(len(names), columns=(5, 4), height=0.9 + 0.3 * len(labels), sharex=True, sharey=True)
    for each, name in zip(axes, names, strict=True):
        counts = findings.confusions[name, task].counts
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(100.0 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
        each.imshow(shares, cmap=share_colours(), vmin=0, vmax=100, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            if not np.isnan(share):
                ink = "white" if share > 68 else "#333333"
                each.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=8, color=ink)
        each.axvline(len(labels) - 0.5, color="white", linewidth=3)
        each.set_title(short_name(name or "base model"), fontweight="bold" if name in (None, task) else "normal")
        each.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
        each.set_yticks(range(len(labels)), [short_name(label, 14) for label in labels])
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return figure


def draw_prior_shifts(findings: ClassFindings, tasks: list[str]) -> "Figure":
    """Predicted less true shares of every label, a panel a task; filled where the adapter has moved."""
    names = (None, *findings.adapters)
    figure, axes = panels(len(tasks), columns=(3,), height=0.75 + 0.26 * len(names), sharey=True)
    moved = set(findings.moved)
    rows = np.arange(len(names))[::-1]
    for each, task in zip(axes, tasks, strict=True):
        labels = [*findings.confusions[None, task].labels, "none"]
        for j, label in enumerate(labels):
            offset = 0.3 * (0.5 - (j + 0.5) / len(labels)) * 2
            colour = GREY if label == "none" and j == len(labels) - 1 else SERIES[j % len(SERIES)]
            value, low, high = _column(findings, task, j)
            each.barh(rows + offset, value, height=0.52 / len(labels), color=colour, label=short_name(label, 14))
            each.hlines(rows + offset, low, high, color="#222222", linewidth=0.7)
        for row, name in zip(rows, names, strict=True):
            if name is not None and (name, task) in moved:
                edge = each.get_yaxis_transform()
                each.plot(1.0, row, marker="o", markersize=3.5, color=BLUE, transform=edge, clip_on=False)
        each.axvline(0, color=GREY, linewidth=0.8)
        each.axhline(rows[0] - 0.5, color="#CCCCCC", linewidth=0.8)
        each.set_title(short_name(task))
        each.set_xlim(-105, 105)
        each.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2, handlelength=1, columnspacing=1, fontsize=7.5
        )
        each.set_yticks(rows, [short_name(name or "base model", 20) for name in names])
    figure.supxlabel("predicted less true share, points", fontsize=9)
    return figure


def _column(findings: ClassFindings, task: str, label: int) -> np.ndarray:
    """Shift and bounds of one label, in points, for base and adapters: (3, names)."""
    shifts = [findings.shifts[a, task] for a in findings.adapters]
    values = [shifts[0].base[label], *(s.adapter[label] for s in shifts)]
    bounds = [shifts[0].base_bounds[label], *(s.adapter_bounds[label] for s in shifts)]
    return 100 * np.array([values, *np.transpose(bounds)])


_INTRO = (
    "What an adapter learns of its source's classes shows in which labels it prefers elsewhere. Confusion "
    "matrices are in percent of the true class; “none” is an answer that names no label of the task. "
    f"Tasks with more than {MOST_LABELS} labels are in the tables only."
)
_PANELS = 9


def class_section(findings: ClassFindings) -> Section:
    """Confusion matrices of the tasks that were sources, and prior shifts of all small ones."""
    small = small_tasks(findings)
    drawn = [t for t in small if t in findings.adapters] or small[:3]
    pictures = [
        Picture(
            name=f"confusion_{task}",
            title=f"Confusion matrices on {task}",
            figure=draw_confusions(findings, task),
            caption=confusion_caption(findings, task),
            alt=(
                f"Confusion matrices of the base model and of every adapter on {task}; counts are in the table of "
                "confusions."
            ),
        )
        for task in drawn
    ]
    ordered = sorted(small, key=lambda t: t not in drawn)
    for i in range(0, len(ordered), _PANELS):
        number = "" if len(ordered) <= _PANELS else f"_{i // _PANELS + 1}"
        part = ordered[i : i + _PANELS]
        shift = Picture(
            name=f"prior_shift{number}",
            title=f"Labels predicted too often and too rarely: {listed(part, 3)}",
            figure=draw_prior_shifts(findings, part),
            caption=shift_caption(findings, part),
            alt=f"Bars of predicted less true shares of each label on {listed(part, 9)}, by adapter, with intervals.",
        )
        pictures.append(shift)
    tables = (_sources(findings), _summary(findings), _confusions(findings), _shifts(findings))
    return Section("classes", "Class habits", _INTRO, tuple(pictures), tuple(t for t in tables if t.rows))


def confusion_caption(findings: ClassFindings, task: str) -> str:
    """Balanced accuracy of base and the extremes, and answers without a label."""
    base = findings.confusions[None, task]
    n = int(base.counts.sum())
    scores = {a: findings.confusions[a, task].balanced_accuracy for a in findings.adapters}
    best, worst = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
    widest = max(float(np.max(np.diff(findings.confusions[a, task].recall_bounds))) for a in findings.adapters) / 2
    silent = base.counts[:, -1].sum() / n
    return (
        f"Balanced accuracy on {counted(n, 'example')}: base model {percent(base.balanced_accuracy)}, "
        f"highest {best} {percent(scores[best])}, lowest {worst} {percent(scores[worst])}. "
        f"{percent(silent)} of the base model's answers name no label. Highest and lowest of many are too far out "
        f"by chance, and the 95% interval of a class's recall is up to ±{100 * widest:.0f} points."
    )


def shift_caption(findings: ClassFindings, tasks: list[str]) -> str:
    """How many adapters' label shares differ from the base model's."""
    pairs = [pair for pair in findings.shifts if pair[1] in tasks]
    moved = [pair for pair in findings.moved if pair[1] in tasks]
    rate = f"at a false-discovery rate of {percent(findings.q)} over all label tasks"
    if not moved:
        cells = counted(len(pairs), "cell")
        called = f"In none of {cells} are the predicted labels shown to differ from the base model's {rate}."
    else:
        adapter, task = max(moved, key=lambda pair: findings.shifts[pair].moved)
        shift = findings.shifts[adapter, task]
        excess = shift.adapter - shift.base
        up = [*shift.labels, "none"][int(excess.argmax())]
        called = (
            f"In {len(moved)} of {counted(len(pairs), 'cell')} (a dot at the right edge) the predicted labels differ "
            f"from the base model's {rate}; most in {adapter} on {task}, where “{up}” is predicted "
            f"{100 * excess.max():.0f} points more often than by the base model ({p_value(shift.p)})."
        )
    return f"{called} Bars: predicted less true share, thin lines 95% intervals over examples."


def _sources(findings: ClassFindings) -> Table:
    rows = [
        {
            "source": name,
            "label": label,
            "rows": int(s.counts[i]),
            "share": float(s.shares[i]),
            "normalised_entropy": s.normalised_entropy,
            "imbalance": s.imbalance if np.isfinite(s.imbalance) else None,
        }
        for name, s in findings.sources.items()
        for i, label in enumerate(s.labels)
    ]
    return Table("source_classes", "Classes of the training rows", rows)


def _summary(findings: ClassFindings) -> Table:
    rows = []
    for (name, task), c in findings.confusions.items():
        shift = findings.shifts.get((name or "", task))
        rows.append(
            {
                "adapter": name or "base model",
                "task": task,
                "balanced_accuracy": c.balanced_accuracy,
                "kappa": c.kappa,
                "no_label": float(c.counts[:, -1].sum() / c.counts.sum()),
                "distance_to_truth": shift.adapter_distance if shift else None,
                "distance_to_base": shift.moved if shift else None,
                "p_moved": shift.p if shift else None,
                "q_moved": findings.q_values.get((name or "", task)),
            }
        )
    return Table("class_habits", "Class habits on every label task", rows)


def _confusions(findings: ClassFindings) -> Table:
    rows = [
        {
            "adapter": name or "base model",
            "task": task,
            "true": true,
            "predicted": predicted,
            "examples": int(c.counts[i, j]),
        }
        for (name, task), c in findings.confusions.items()
        for i, true in enumerate(c.labels)
        for j, predicted in enumerate([*c.labels, "none"])
        if c.counts[i, j] or len(c.labels) <= MOST_LABELS
    ]
    return Table("confusions", "Counts of true and predicted labels", rows)


def _shifts(findings: ClassFindings) -> Table:
    rows = [
        {
            "adapter": adapter,
            "task": task,
            "label": label,
            "shift": float(s.adapter[i]),
            "low": float(s.adapter_bounds[i, 0]),
            "high": float(s.adapter_bounds[i, 1]),
            "base_shift": float(s.base[i]),
            "base_low": float(s.base_bounds[i, 0]),
            "base_high": float(s.base_bounds[i, 1]),
        }
        for (adapter, task), s in findings.shifts.items()
        for i, label in enumerate([*s.labels, "none"])
    ]
    return Table("prior_shifts", "Predicted less true shares of every label", rows)
