"""The section of class habits."""

import numpy as np

from ...findings import ClassFindings
from ..figures.classes import MOST_LABELS, confusions, prior_shifts, small_tasks
from ..section import Picture, Section
from ..tables import Table
from ..wording import counted, listed, p_value, percent

_INTRO = (
    "What an adapter learns of its source's classes shows in which labels it prefers elsewhere. Confusion "
    "matrices are in percent of the true class; “none” is an answer that names no label of the task. "
    f"Tasks with more than {MOST_LABELS} labels are in the tables only."
)
_PANELS = 9


def class_section(found: ClassFindings) -> Section:
    """Confusion matrices of the tasks that were sources, and prior shifts of all small ones."""
    small = small_tasks(found)
    drawn = [t for t in small if t in found.adapters] or small[:3]
    pictures = [
        Picture(
            name=f"confusion_{task}",
            title=f"Confusion matrices on {task}",
            figure=confusions(found, task),
            caption=confusion_caption(found, task),
            alt=f"Confusion matrices of the base model and of every adapter on {task}; counts are in the table of confusions.",
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
            figure=prior_shifts(found, part),
            caption=shift_caption(found, part),
            alt=f"Bars of predicted less true shares of each label on {listed(part, 9)}, by adapter, with intervals.",
        )
        pictures.append(shift)
    tables = (_sources(found), _summary(found), _confusions(found), _shifts(found))
    return Section("classes", "Class habits", _INTRO, tuple(pictures), tuple(t for t in tables if t.rows))


def confusion_caption(found: ClassFindings, task: str) -> str:
    """Balanced accuracy of base and the extremes, and answers without a label."""
    base = found.confusions[None, task]
    n = int(base.counts.sum())
    scores = {a: found.confusions[a, task].balanced_accuracy for a in found.adapters}
    best, worst = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
    widest = max(float(np.max(np.diff(found.confusions[a, task].recall_bounds))) for a in found.adapters) / 2
    silent = base.counts[:, -1].sum() / n
    return (
        f"Balanced accuracy on {counted(n, 'example')}: base model {percent(base.balanced_accuracy)}, "
        f"highest {best} {percent(scores[best])}, lowest {worst} {percent(scores[worst])}. "
        f"{percent(silent)} of the base model's answers name no label. Highest and lowest of many are too far out "
        f"by chance, and the 95% interval of a class's recall is up to ±{100 * widest:.0f} points."
    )


def shift_caption(found: ClassFindings, tasks: list[str]) -> str:
    """How many adapters' label shares differ from the base model's."""
    pairs = [pair for pair in found.shifts if pair[1] in tasks]
    moved = [pair for pair in found.moved if pair[1] in tasks]
    rate = f"at a false-discovery rate of {percent(found.q)} over all label tasks"
    if not moved:
        called = f"In none of {counted(len(pairs), 'cell')} are the predicted labels shown to differ from the base model's {rate}."
    else:
        adapter, task = max(moved, key=lambda pair: found.shifts[pair].moved)
        shift = found.shifts[adapter, task]
        excess = shift.adapter - shift.base
        up = [*shift.labels, "none"][int(excess.argmax())]
        called = (
            f"In {len(moved)} of {counted(len(pairs), 'cell')} (a dot at the right edge) the predicted labels differ from the base "
            f"model's {rate}; most in {adapter} on {task}, where “{up}” is predicted {100 * excess.max():.0f} points more often "
            f"than by the base model ({p_value(shift.p)})."
        )
    return f"{called} Bars: predicted less true share, thin lines 95% intervals over examples."


def _sources(found: ClassFindings) -> Table:
    rows = [
        {
            "source": name,
            "label": label,
            "rows": int(s.counts[i]),
            "share": float(s.shares[i]),
            "normalised_entropy": s.normalised_entropy,
            "imbalance": s.imbalance if np.isfinite(s.imbalance) else None,
        }
        for name, s in found.sources.items()
        for i, label in enumerate(s.labels)
    ]
    return Table("source_classes", "Classes of the training rows", rows)


def _summary(found: ClassFindings) -> Table:
    rows = []
    for (name, task), c in found.confusions.items():
        shift = found.shifts.get((name or "", task))
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
                "q_moved": found.q_values.get((name or "", task)),
            }
        )
    return Table("class_habits", "Class habits on every label task", rows)


def _confusions(found: ClassFindings) -> Table:
    rows = [
        {
            "adapter": name or "base model",
            "task": task,
            "true": true,
            "predicted": predicted,
            "examples": int(c.counts[i, j]),
        }
        for (name, task), c in found.confusions.items()
        for i, true in enumerate(c.labels)
        for j, predicted in enumerate([*c.labels, "none"])
        if c.counts[i, j] or len(c.labels) <= MOST_LABELS
    ]
    return Table("confusions", "Counts of true and predicted labels", rows)


def _shifts(found: ClassFindings) -> Table:
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
        for (adapter, task), s in found.shifts.items()
        for i, label in enumerate([*s.labels, "none"])
    ]
    return Table("prior_shifts", "Predicted less true shares of every label", rows)
