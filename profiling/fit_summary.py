"""What a profile's summary says of a fit: the matrix, the traits with their null, their stability and their names."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..adapters import StoredProfile
from .matrix.matrix import TransferMatrix
from .tasks.task import Task
from .traits.names import inherited_labels, name_traits, task_group
from .traits.space import TraitSpace
from .traits.stability import adapter_stability, loading_stability


def fit_summary(
    matrix: TransferMatrix,
    traits: TraitSpace,
    tasks: Sequence[Task],
    previous: StoredProfile | None,
) -> dict[str, Any]:
    """The part of a summary that a fit of `traits` to `matrix` determines; labels are inherited from `previous`."""
    found: dict[str, Any] = {"scaling": traits.scaling, "components": traits.components_}
    noise = loading_stability(matrix.example_gains, **found)
    names = name_traits(
        traits.components_,
        matrix.tasks,
        groups={task.name: task_group(task) for task in tasks},
        supported=traits.supported_,
        stability=noise,
    )
    return {
        "adapters": list(matrix.adapters),
        "tasks": list(matrix.tasks),
        "base": matrix.base.tolist(),
        "scores": matrix.scores.tolist(),
        "paired": matrix.paired,
        "loadings": traits.components_.tolist(),
        "trait_scores": traits.transform(matrix.gains).tolist(),
        "explained_variance": traits.explained_variance_ratio_.tolist(),
        "null": traits.null_.tolist(),
        "n_traits": traits.n_traits_,
        "scaling": traits.scaling,
        "gain_means": traits.mean_.tolist(),
        "gain_scales": traits.scale_.tolist(),
        "null_mean": traits.null_mean_.tolist(),
        "p_values": traits.p_values_.tolist(),
        "trait_names": [asdict(name) for name in names],
        "trait_labels": inherited_labels(previous and previous.summary, matrix.tasks, traits.components_),
        "stability": {
            "examples": noise.to_summary(),
            "adapters": adapter_stability(matrix.gains, **found).to_summary(),
        },
    }
