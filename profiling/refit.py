"""Fit traits and routing anew from stored outcomes: nothing is trained or measured."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..adapters import InputError, Origin, Registry
from ..router import FitRequests, fit_profile
from .fit_summary import fit_summary
from .matrix.matrix import TransferMatrix
from .matrix.profiled import Profiled
from .traits.space import TraitSpace

LEAST_WHOLE = 2


def refit(registry: Registry) -> int:
    """Fit the newest profile's adapters anew, those that joined since included; return the new version.

    A row that was measured on anchors counts with its estimated gain on every example of a task.

    Raises:
        InputError: fewer than two rows were measured in full.
        ConflictError: another profile came first.
    """
    return fit_anew(registry, Profiled.open(registry))


def fit_anew(registry: Registry, profiled: Profiled, *, origin: Origin = "fit") -> int:
    """Fit what `profiled` holds, as a version after the one that it was read from; see `refit`."""
    check_enough(profiled)
    matrix = _matrix(profiled)
    traits = TraitSpace(scaling=profiled.summary["scaling"]).fit(matrix.gains)
    known = {a.name: a for a in registry.adapters()}
    sources = [known[name].source_task if name in known else None for name in matrix.adapters]
    routing = fit_profile(
        matrix.adapters,
        FitRequests(
            texts=[e.prompt for t in profiled.tasks for e in t.test_examples],
            tasks=[t.name for t in profiled.tasks for _ in t.test_examples],
            gains=np.concatenate(matrix.example_gains),
            sources=[profiled.training_rows(source) for source in sources],
        ),
        traits.transform(matrix.gains),
        n_traits=traits.n_traits_,
    )
    summary = profiled.summary | fit_summary(matrix, traits, profiled.tasks, profiled.stored)
    summary |= {"joined": [], "paired": _paired(profiled, matrix)}
    return registry.put_profile(routing.to_bytes(), summary, origin=origin, parent=profiled.stored.version)


def check_enough(profiled: Profiled) -> None:
    """Check that enough rows were measured in full to fit.

    Raises:
        InputError: they are too few.
    """
    if (whole := len(profiled.whole)) < LEAST_WHOLE:
        raise InputError(
            f"only {whole} row{'s were' if whole != 1 else ' was'} measured in full, and a fit needs {LEAST_WHOLE}: "
            "run `traitroute adapters measure NAME --full` for some"
        )


def _matrix(profiled: Profiled) -> TransferMatrix:
    """The matrix over all adapters of the profile, estimated rows included."""
    inside = {(None, t.name) for t in profiled.tasks} | {
        (name, t.name) for name in profiled.whole for t in profiled.tasks
    }
    cells = [profiled.cells[place] for place in sorted(inside, key=_order(profiled))]
    matrix = TransferMatrix.from_cells(cells)
    rows = dict(zip(profiled.summary["adapters"], profiled.summary["scores"], strict=True))
    guessed = np.array([rows[name] for name in profiled.estimated]).reshape(-1, len(matrix.tasks))
    gains = guessed - matrix.base
    return replace(
        matrix,
        adapters=(*matrix.adapters, *profiled.estimated),
        scores=np.vstack([matrix.scores, guessed]),
        example_gains=tuple(
            np.hstack([g, np.broadcast_to(gains[:, i], (len(g), len(gains)))])
            for i, g in enumerate(matrix.example_gains)
        ),
    )


def _order(profiled: Profiled) -> Any:
    adapters = {None: -1} | {name: i for i, name in enumerate(profiled.summary["adapters"])}
    tasks = {task.name: i for i, task in enumerate(profiled.tasks)}
    return lambda place: (adapters[place[0]], tasks[place[1]])


def _paired(profiled: Profiled, matrix: TransferMatrix) -> dict[str, list[list[int]]]:
    """Counts of examples, none for rows that were not measured in full."""
    nothing = [0] * len(matrix.tasks)
    return {
        part: [*rows[: len(profiled.whole)], *(nothing for _ in profiled.estimated)]
        for part, rows in matrix.paired.items()
    }
