"""Fit traits and routing to measured outcomes: those of a new profile, or of the newest one again."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters import Estimates, FittedTraits, InputError, Origin, PairedOutcomes, ProfileSummary, Registry
from ..router import FitRequests, RoutingProfile, fit_profile
from .matrix.matrix import TransferMatrix
from .matrix.profiled import Profiled, training_rows
from .tasks.task import Task, routing_scores
from .traits.names import inherited_labels, name_traits, task_group
from .traits.space import Scaling, TraitSpace
from .traits.stability import adapter_stability, loading_stability

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """Traits and a routing profile, fitted to the gains of `matrix` on `tasks`."""

    tasks: tuple[Task, ...]
    matrix: TransferMatrix
    traits: TraitSpace
    routing: RoutingProfile

    def summary(self, previous: ProfileSummary | None, *, added: Sequence[str] = (), **about: Any) -> ProfileSummary:
        """The summary of the fit, with the other parts that are given in `about`.

        The owner's labels are carried over from the `previous` profile where it had the same tasks but those `added`.
        """
        matrix = self.matrix
        parts = {
            "tasks": matrix.tasks,
            "scored_by": routing_scores(self.tasks),
            "adapters": matrix.adapters,
            "base": matrix.base,
            "scores": matrix.scores,
            "trait_scores": self.traits.transform(matrix.gains),
            "paired": matrix.paired,
            "estimated": Estimates.none(len(matrix.tasks)),
            "traits": self._traits(previous, added),
        }
        return ProfileSummary(**parts | about)

    def _traits(self, previous: ProfileSummary | None, added: Sequence[str]) -> FittedTraits:
        matrix, traits = self.matrix, self.traits
        again: dict[str, Any] = {"scaling": traits.scaling, "components": traits.components_}
        by_examples = loading_stability(matrix.example_gains, **again)
        return FittedTraits(
            scaling=traits.scaling,
            n_traits=traits.n_traits_,
            loadings=traits.components_,
            explained_variance=traits.explained_variance_ratio_,
            null=traits.null_,
            null_mean=traits.null_mean_,
            p_values=traits.p_values_,
            gain_means=traits.mean_,
            gain_scales=traits.scale_,
            names=name_traits(
                traits.components_,
                matrix.tasks,
                groups={task.name: task_group(task) for task in self.tasks},
                supported=traits.supported_,
                stability=by_examples,
            ),
            labels=inherited_labels(previous, matrix.tasks, traits.components_, added=added),
            by_examples=by_examples,
            by_adapters=adapter_stability(matrix.gains, **again),
        )


def fit(
    matrix: TransferMatrix,
    tasks: Sequence[Task],
    sources: Sequence[str | Path | None],
    *,
    scaling: Scaling = "raw",
    everyday: Mapping[str, float] | None = None,
) -> Fit:
    """Fit traits and routing to `matrix`.

    `sources` are what each adapter was trained on, where that is known: the name of a task, or a file of rows.
    `everyday` is what adapters lose on everyday requests, by name, where that was measured.
    """
    traits = TraitSpace(scaling=scaling).fit(matrix.gains)
    requests = FitRequests(
        texts=[e.routed for t in tasks for e in t.test_examples],
        tasks=[t.name for t in tasks for _ in t.test_examples],
        gains=np.concatenate(matrix.example_gains),
        base=np.repeat(matrix.base, [len(gains) for gains in matrix.example_gains]),
        # Tasks on the same rows are alike, and left out together.
        groups=[getattr(t.rows, "dataset", None) or t.name for t in tasks for _ in t.test_examples],
        sources=[training_rows(tasks, source) for source in sources],
    )
    scores = traits.transform(matrix.gains)
    lost = [(everyday or {}).get(name) for name in matrix.adapters]
    routing = fit_profile(matrix.adapters, requests, scores, n_traits=traits.n_traits_, everyday_losses=lost)
    return Fit(tuple(tasks), matrix, traits, routing)


def refit(registry: Registry) -> int:
    """Fit the newest profile's adapters anew, those that joined since included; return the new version.

    A row that was measured on anchors counts with its estimated gain on every example of a task.

    Raises:
        InputError: no row was measured in full.
        ConflictError: another profile came first.
    """
    return fit_again(registry, Profiled.open(registry))


def fit_again(registry: Registry, profiled: Profiled, *, warnings: Sequence[str] = (), origin: Origin = "fit") -> int:
    """Fit what `profiled` holds, as a version after the one that it was read from; see `refit`."""
    check_enough(profiled)
    matrix = _matrix(profiled)
    before = profiled.summary
    known: dict[str, str | Path | None] = {a.name: a.source_task for a in registry.adapters()}
    files = {name: Path(note.rows) for name, note in before.training.items() if note.rows}
    known |= {name: file for name, file in files.items() if file.is_file()}
    fitted = fit(
        matrix,
        profiled.tasks,
        [known.get(name) for name in matrix.adapters],
        scaling=before.traits.scaling,
        everyday=before.everyday,
    )
    new = [task for task in profiled.tasks if task.name not in before.tasks]
    summary = fitted.summary(
        before,
        added=[task.name for task in new],
        suite=before.suite,
        base_model=before.base_model,
        method=before.method,
        ablations=before.ablations,
        warnings=(*before.warnings, *warnings, *warn_of_pointless(matrix, new)),
        cells=tuple(dict.fromkeys([*before.cells, *(cell.key for cell in profiled.cells.values())])),
        weights=before.weights,
        training=before.training,
        everyday=before.everyday,
        paired=_paired(matrix, len(profiled.whole)),
        estimated=_estimated(profiled),
        recalibration=before.recalibration,
    )
    return registry.put_profile(fitted.routing.to_bytes(), summary, origin=origin, parent=profiled.stored.version)


def warn_of_pointless(matrix: TransferMatrix, tasks: Sequence[Task]) -> list[str]:
    """Warn of those of `tasks` on which neither base nor any adapter has a point, and return the warnings."""
    best = dict(zip(matrix.tasks, np.maximum(matrix.base, matrix.scores.max(axis=0)), strict=True))
    cure = "; where other words may be right too, f1 and rouge_l give points for what is near"
    warnings = [
        f"{task.name}: neither base nor any adapter has a point (metric {task.metric.name}, score {task.score}), so it "
        f"tells nothing of routing{cure if task.metric.name in {'text', 'exact'} else ''}"
        for task in tasks
        if best[task.name] == 0
    ]
    for warning in warnings:
        _logger.warning(warning)
    return warnings


def check_enough(profiled: Profiled) -> None:
    """Check that enough rows were measured in full to fit.

    Raises:
        InputError: they are too few.
    """
    if not profiled.whole:
        raise InputError(
            "no row was measured in full, and a fit needs one: run `traitroute adapters measure NAME --full` for some"
        )


def _matrix(profiled: Profiled) -> TransferMatrix:
    """The matrix over all adapters of the profile: those measured in full, then the estimated rows."""
    matrix = profiled.matrix(profiled.whole)
    rows = [estimate.gains for estimate in profiled.estimated.values()]
    gains = np.array(rows).reshape(-1, len(matrix.tasks))
    return replace(
        matrix,
        adapters=(*matrix.adapters, *profiled.estimated),
        scores=np.vstack([matrix.scores, matrix.base + gains]),
        example_gains=tuple(
            np.hstack([g, np.broadcast_to(gains[:, i], (len(g), len(gains)))])
            for i, g in enumerate(matrix.example_gains)
        ),
    )


def _paired(matrix: TransferMatrix, whole: int) -> PairedOutcomes:
    """Counts of examples, none for rows that were not measured in full."""
    counts = {name: rows.copy() for name, rows in matrix.paired}
    for rows in counts.values():
        rows[whole:] = 0
    return PairedOutcomes(**counts)


def _estimated(profiled: Profiled) -> Estimates:
    estimates = Estimates.none(len(profiled.tasks))
    for name, row in profiled.estimated.items():
        estimates = estimates.with_row(name, row.errors, row.examples)
    return estimates
