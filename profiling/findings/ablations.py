"""What changes when a source is altered, and how much of a gain a control without its content explains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..analysis.controls import Explained, ExplainedRows, ablation_effects, explained_rows
from ..statistics.significance import GainTests
from ..study import Study
from ..tasks.ablation import Ablation
from ..tasks.scoring import Score
from .missing import Missing

ABLATION_SCORES: tuple[Score, ...] = ("strict", "lenient")


@dataclass(frozen=True)
class Control:
    """A control beside its source's adapter on every source task; `own` and `elsewhere` sum these up.

    `own` is the source's own task, None where it was not measured; `elsewhere` pools the others, each
    weighing the same: that is where a gain is transfer.
    """

    ablation: Ablation
    all: ExplainedRows
    own: Explained | None
    elsewhere: Explained | None


@dataclass(frozen=True)
class AblationFindings:
    """`effects`: variants against their originals on `tasks`, by score; `controls` by strict score."""

    tasks: tuple[str, ...]
    variants: Mapping[str, Ablation]
    effects: Mapping[Score, GainTests] | Missing
    controls: tuple[Control, ...] | Missing


def find_ablations(
    study: Study, *, q: float = 0.05, n_resamples: int = 2000, seed: int = 0
) -> AblationFindings | Missing:
    """Test every ablation against the adapter of the unaltered source."""
    if not study.ablations:
        return Missing("the suite of this profile has no ablations")
    tasks = tuple(t for t in study.tasks if t in study.adapters)
    variants = {a.name: a for a in study.ablations.values() if not a.is_control}
    controls = [a for a in study.ablations.values() if a.is_control]
    settings: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    origins = {name: a.of for name, a in variants.items()}
    effects: Mapping[Score, GainTests] = {
        score: ablation_effects(study.outcomes, origins, tasks, score=score, q=q, **settings)
        for score in ABLATION_SCORES
    }
    found = tuple(_control(study, a, tasks, settings) for a in controls)
    return AblationFindings(
        tasks=tasks,
        variants=variants,
        effects=effects if variants else Missing("the suite has controls, but no altered sources"),
        controls=found or Missing("the suite has altered sources, but no controls"),
    )


def _control(study: Study, ablation: Ablation, tasks: tuple[str, ...], settings: dict[str, Any]) -> Control:
    def set_beside(on: list[str]) -> ExplainedRows:
        return explained_rows(study.outcomes, ablation.of, ablation.name, on, **settings)

    found = set_beside(list(tasks))
    others = [t for t in found.tasks if t != ablation.of]
    return Control(
        ablation=ablation,
        all=found,
        own=dict(zip(found.tasks, found.rows, strict=True)).get(ablation.of),
        elsewhere=set_beside(others).pooled if others else None,
    )
