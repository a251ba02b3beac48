"""Class habits: how even the classes of the sources are, and which classes an adapter then prefers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..analysis.classes import (
    ClassSummary,
    Confusion,
    PriorShift,
    confusion,
    prior_shift,
    summarise,
)
from ..statistics.significance import discoveries
from ..study import Study
from .corpus import Corpus
from .missing import Missing


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
            said = study.outcomes[adapter, name].predicted_label
            confusions[adapter, name] = confusion(true[name], said, labels)
            shifts[adapter, name] = prior_shift(said, base, true[name], labels, n_resamples=n_resamples, seed=seed)
    values, _ = discoveries([s.p for s in shifts.values()])
    return ClassFindings(
        adapters=study.adapters,
        tasks=tuple(tasks),
        sources=_sources(study),
        confusions=confusions,
        shifts=shifts,
        q_values=dict(zip(shifts, map(float, values), strict=True)),
    )


def _true(study: Study, corpus: Corpus, task: str) -> NDArray[np.int64]:
    labels = study.tasks[task].labels
    return np.array([labels.index(e.answer) for e in corpus.test_examples(task)], dtype=np.int64)


def _sources(study: Study) -> dict[str, ClassSummary]:
    """Training classes of every adapter and ablation whose source has labels."""
    origins = {a: a for a in study.adapters} | {a.name: a.of for a in study.ablations.values()}
    found = {}
    for name, source in origins.items():
        if labels := study.tasks[source].labels:
            answers = [labels.index(e.answer) for e in study.training_set(name).examples]
            found[name] = summarise(answers, labels)
    return found
