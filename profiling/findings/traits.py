"""The trait space of the gains: shares against the null, stable loadings, names, and where adapters lie."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...adapters import Outcomes
from ..study import Study
from ..traits.names import TraitName, name_traits, task_group
from ..traits.space import TraitSpace
from ..traits.stability import Stability, adapter_stability, loading_stability

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TraitFindings:
    """Components of the strict gains; `labels` are those a user gave, by component from 1.

    `projections` (adapters, r) are trait scores. `ablations` name further rows (ablations, r) of
    `ablation_projections`, predicted from the source tasks alone, which is all they are measured on.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    space: TraitSpace
    by_examples: Stability
    by_adapters: Stability
    names: tuple[TraitName, ...]
    labels: Mapping[int, str]
    projections: Array
    ablations: tuple[str, ...]
    ablation_projections: Array

    @property
    def claimed(self) -> int:
        """Number of leading components whose share exceeds the null; 0 where none does."""
        return int(np.sum(self.space.supported_))

    def title(self, i: int) -> str:
        """What component `i` (from 0) is called: the user's label, else the name made from loadings."""
        return self.labels.get(i + 1) or self.names[i].name


def find_traits(study: Study, *, n_bootstrap: int = 200, seed: int = 0) -> TraitFindings:
    """Fit the traits again and say how far each loading can be trusted."""
    matrix, space = study.matrix(), study.traits
    again = {
        "scaling": space.scaling,
        "components": space.components_,
        "n_bootstrap": n_bootstrap,
        "random_state": seed,
    }
    by_examples = loading_stability(matrix.example_gains, **again)
    names = name_traits(
        space.components_,
        matrix.tasks,
        groups={name: task_group(task) for name, task in study.tasks.items()},
        supported=space.supported_,
        stability=by_examples,
    )
    ablations = [a for a in study.ablations if any((a, t) in study.outcomes for t in matrix.tasks)]
    rows = np.array([_gains(study, name) for name in ablations])
    found = space.transform(rows) if ablations else np.zeros((0, len(space.components_)))
    return TraitFindings(
        adapters=matrix.adapters,
        tasks=matrix.tasks,
        space=space,
        by_examples=by_examples,
        by_adapters=adapter_stability(matrix.gains, **again),
        names=names,
        labels={int(i): text for i, text in study.summary.get("trait_labels", {}).items()},
        projections=space.transform(matrix.gains),
        ablations=tuple(ablations),
        ablation_projections=found,
    )


def _gains(study: Study, name: str) -> list[float]:
    """Strict gain on every task, NaN where `name` was not measured."""

    def share(outcomes: Outcomes) -> float:
        return float(outcomes.strict.mean())

    return [
        share(study.outcomes[name, task]) - share(study.outcomes[None, task])
        if (name, task) in study.outcomes
        else np.nan
        for task in study.tasks
    ]
