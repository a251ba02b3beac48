"""A study: everything one profile measured, opened from the registry for the analyses and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from ..adapters import Cell, InputError, Outcomes, ProfileSummary, Registry, RegistryError, RoutingScore
from .matrix.matrix import TransferMatrix
from .matrix.profiled import profiled_tasks
from .tasks.ablation import Ablation
from .tasks.scoring import Scores
from .tasks.task import Task, TrainingSet, routing_scores
from .traits.space import TraitSpace


@dataclass(frozen=True)
class Study:
    """One profile version: its tasks, adapters, ablations and the outcomes of every cell.

    `adapters` are the matrix's rows, of which `sources` were each trained on the task of its name; of the others, which
    were there already, no analysis of training data speaks. `ablations` were measured on the source tasks only.
    Adapters that joined after the fit are left out. Rows of data are read again where an analysis asks for texts, so
    the data must be where it was.
    """

    version: int
    suite: str
    base_model: str
    adapters: tuple[str, ...]
    tasks: Mapping[str, Task]
    ablations: Mapping[str, Ablation]
    cells: tuple[Cell, ...]
    summary: ProfileSummary

    @classmethod
    def open(cls, registry: Registry, version: int | None = None) -> Self:
        """Read the latest profile, or `version`.

        Raises:
            RegistryError: there is no profile, or its tasks were profiled again since then.
        """
        profile = registry.latest_profile() if version is None else registry.profile(version)
        if profile is None:
            raise RegistryError(f"{registry.location} holds no profile yet: run `traitroute profile`")
        summary = profile.summary
        cells = registry.cells(keys=summary.cells)
        if len(cells) < len(set(summary.cells)):
            raise RegistryError(f"profile version {profile.version} has lost cells: run `traitroute profile` again")
        ablations = [Ablation.model_validate(a) for a in summary.ablations]
        return cls(
            version=profile.version,
            suite=summary.suite,
            base_model=summary.base_model,
            adapters=tuple(name for name in summary.whole if name not in summary.joined),
            tasks={task.name: task for task in profiled_tasks(registry, summary)},
            ablations={a.name: a for a in ablations},
            cells=tuple(cells),
            summary=summary,
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """The adapters that were trained on the task of their name, in the matrix's order."""
        return tuple(name for name in self.adapters if name in self.tasks and self.tasks[name].source)

    def require_sources(self, what: str) -> tuple[str, ...]:
        """`sources`, where there are any.

        Raises:
            InputError: there is none, so nothing can be said of `what`.
        """
        if not self.sources:
            raise InputError(f"no adapter was trained on a task of this profile, so {what} is not known")
        return self.sources

    @cached_property
    def outcomes(self) -> dict[tuple[str | None, str], Outcomes]:
        """Every cell's outcomes by adapter (None: the base model; ablations too) and task."""
        return {(c.adapter, c.task): c.outcomes for c in self.cells}

    @cached_property
    def scores(self) -> Mapping[str, Scores]:
        """The scores that gains are looked at by, by name; first "routing", where it differs from the strict one.

        Routing goes by each task's own score. Likelihoods are not known of all answers where a server gave none, or a
        task has no gold answers.
        """
        differ = any(
            not np.array_equal(self.tasks[task].scores(outcomes), outcomes.strict)
            for (_, task), outcomes in self.outcomes.items()
        )
        fixed: dict[str, Scores] = {"strict": "strict", "lenient": "lenient"}
        if all(np.isfinite(each.log_likelihood).all() for each in self.outcomes.values()):
            fixed["likelihood"] = "likelihood"
        return {"routing": self.routing, **fixed} if differ else fixed

    @cached_property
    def routing(self) -> Mapping[str, RoutingScore]:
        """By task, the score that the profile was fitted to."""
        return routing_scores(self.tasks.values())

    @cached_property
    def traits(self) -> TraitSpace:
        """The profile's trait space, fitted again to the same gains."""
        return TraitSpace(scaling=self.summary.traits.scaling).fit(self.matrix().gains)

    def matrix(self, *, score: Scores | None = None, adapters: Sequence[str] | None = None) -> TransferMatrix:
        """The transfer matrix, without ablations, of all adapters or of some, by any score; without one by what the
        profile was fitted to.
        """
        kept = self.adapters if adapters is None else adapters
        order = {None: -1} | {name: i for i, name in enumerate(kept)}
        place = {task: i for i, task in enumerate(self.tasks)}
        inside = [c for c in self.cells if c.adapter in order and c.task in place]
        inside.sort(key=lambda c: (order[c.adapter], place[c.task]))
        return TransferMatrix.from_cells(inside, score=score or self.routing)

    def training_set(self, adapter: str) -> TrainingSet:
        """What `adapter` (of the matrix, or an ablation) was trained on.

        Raises:
            SuiteError: the data is not where it was.
        """
        if (ablation := self.ablations.get(adapter)) is not None:
            return ablation.training_set(self.tasks[ablation.of])
        return self.tasks[adapter].training_set
