"""A study over generated tasks with planted outcomes: no model, no data beside the code."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from made_up_summary import made_up_summary, made_up_traits
from traitroute.adapters import Cell, packed_texts
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.ablation import Ablation
from traitroute.profiling.tasks.task import Task

from ...made_up_outcomes import made_up_outcomes

MakeStudy = Callable[..., Study]
Chances = Mapping[tuple[str | None, str], float]

SPECS = {
    "sentiment3": {"labels": ("negative", "neutral", "positive"), "metric": "label"},
    "entailment": {"labels": ("contradiction", "entailment", "neutral"), "metric": "label"},
    "word_problems": {"metric": "number"},
    "structured": {"metric": "json"},
    "toxicity": {"labels": ("not toxic", "toxic"), "metric": "label"},
}
SOURCES = ("sentiment3", "entailment", "word_problems", "structured")
EXAMPLES = 60


@pytest.fixture(scope="session")
def tasks() -> dict[str, Task]:
    """Five tasks, four of them sources; rows are rendered once."""
    found = {}
    for name, spec in SPECS.items():
        fields = {"name": name, "rows": {"built_in": "mini"}, "source": name in SOURCES, **spec}
        found[name] = Task.model_validate(fields | {"train": 40, "test": EXAMPLES})
    return found


@pytest.fixture(scope="session")
def make_study(tasks: dict[str, Task]) -> MakeStudy:
    """Make a study in which each cell is right with its chance (default 0.3, all of them alike)."""

    def make(
        chances: Chances | None = None,
        *,
        ablations: tuple[Ablation, ...] = (),
        keep_outputs: bool = False,
        labels: Mapping[str, str] | None = None,
        changed: Mapping[str, Task] | None = None,
    ) -> Study:
        beside = {a.name: a.measured_on for a in ablations}
        cells = [
            _cell(name, task, (chances or {}).get((name, task.name), 0.3), keep_outputs)
            for name in (None, *SOURCES, *beside)
            for task in tasks.values()
            if name not in beside or task.source or task.name in beside[name]
        ]
        return Study(
            version=2,
            suite="planted",
            base_model="tiny",
            adapters=SOURCES,
            tasks=tasks | dict(changed or {}),
            ablations={a.name: a for a in ablations},
            cells=tuple(cells),
            summary=made_up_summary(tasks=["t"], traits=made_up_traits([[1.0]], labels=dict(labels or {}))),
        )

    return make


def _cell(name: str | None, task: Task, chance: float, keep_outputs: bool) -> Cell:
    """Base and adapters are right on the same examples as far as their chances agree."""
    examples = task.test_examples
    shared = np.random.default_rng(len(task.name)).permutation(len(examples)) / len(examples)
    right = shared < chance
    rng = np.random.default_rng([len(task.name), len(name or "")])
    n = len(examples)
    labels = np.full(n, -1)
    if task.labels:
        true = np.array([task.labels.index(e.answer) for e in examples])
        labels = np.where(right, true, (true + 1) % len(task.labels))
    gold = np.array([1 + len(e.target.split()) for e in examples])
    tokens = np.minimum(rng.poisson(12 if name is None else 6, n), task.max_tokens)
    kept = packed_texts([e.target for e in examples]) if keep_outputs else {}
    outcomes = made_up_outcomes(
        right,
        log_likelihood=-2.0 * gold + right,
        target_tokens=gold,
        output_tokens=tokens,
        predicted_label=labels,
        **kept,
    )
    return Cell(f"{name}/{task.name}", name, task.name, outcomes)
