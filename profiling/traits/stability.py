"""How far loadings can be trusted: whether resampled data give the same components.

Two questions, two bootstraps. Resampled *test examples* show what measurement noise does: would other
examples of the same tasks show the same traits? Resampled *adapters* show what the choice of adapters
does: would other adapters of this kind? Both redo everything after the resampling, scaling included.

Components are matched one to one to the reference (Hungarian method on the absolute cosine), for close
components swap places freely. Matching finds likeness in noise too, so `chance` says how much.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import ortho_group
from sklearn.utils import check_random_state

from ...adapters import Stability
from .imputation import choose_rank, complete
from .space import Scaling, check_measured, principal_components, task_scale

Array = NDArray[np.float64]
INTERVAL = (2.5, 97.5)
_CHANCE_DRAWS = 100


def loading_stability(
    example_gains: Sequence[Array],
    *,
    scaling: Scaling = "raw",
    components: Array | None = None,
    n_bootstrap: int = 200,
    random_state: int | None = 0,
) -> Stability:
    """Stability against measurement noise: test examples are resampled within each task.

    `example_gains` holds for each task an array (examples, adapters), a column of NaN where the cell
    was not measured. `components` (r, tasks) are those to find again, by default those of the gains.

    Raises:
        ValueError: an adapter or a task has no measured cell.
    """
    random = check_random_state(random_state)
    gains = np.stack([g.mean(axis=0) for g in example_gains], axis=1)
    resampled = np.stack([_resampled_means(g, n_bootstrap, random) for g in example_gains], axis=2)
    fill, own = _reference(gains, scaling)
    reference = own if components is None else components
    components_of = (principal_components(fill(each))[1] for each in resampled)
    return _compare(reference, [match_components(reference, each) for each in components_of])


def adapter_stability(
    gains: Array,
    *,
    scaling: Scaling = "raw",
    components: Array | None = None,
    n_bootstrap: int = 200,
    random_state: int | None = 0,
) -> Stability:
    """Stability against the choice of adapters: rows of `gains` (adapters, tasks) are resampled.

    `components` (r, tasks) are those to find again, by default those of the gains. Missing cells are
    filled once, before, since a sample may hold no measured cell of some task. A
    sample of ten adapters holds six or seven different ones: components past that count as not found.

    Raises:
        ValueError: an adapter or a task has no measured cell.
    """
    random = check_random_state(random_state)
    fill, own = _reference(gains, scaling)
    reference = own if components is None else components
    filled = fill(gains) * task_scale(gains, scaling)
    matched = []
    for _ in range(n_bootstrap):
        rows = filled[random.randint(len(filled), size=len(filled))]
        again = principal_components(rows / task_scale(rows, scaling))[1]
        matched.append(match_components(reference, again))
    return _compare(reference, matched)


def match_components(reference: Array, components: Array) -> Array:
    """The loadings (r, tasks) that match `reference` (r, tasks) best one to one, signs aligned.

    Rows of `components` (any number, tasks) have length 1; a reference without a match gets zeros.
    """
    cosines = reference @ components.T
    rows, columns = linear_sum_assignment(-np.abs(cosines))
    signs = np.where(cosines[rows, columns] < 0, -1.0, 1.0)
    matched = np.zeros_like(reference)
    matched[rows] = components[columns] * signs[:, None]
    return matched


def _reference(gains: Array, scaling: Scaling) -> tuple[Callable[[Array], Array], Array]:
    """How gains are scaled and filled, and the components that this gives for `gains`."""
    check_measured(gains)
    # The rank is a setting of the procedure, and too slow to choose anew in every bootstrap.
    rank = choose_rank(gains / task_scale(gains, scaling)) if np.isnan(gains).any() else 0

    def fill(each: Array) -> Array:
        return complete(each / task_scale(each, scaling), rank)

    return fill, principal_components(fill(gains))[1]


def _resampled_means(gains: Array, n_bootstrap: int, random: np.random.RandomState) -> Array:
    """Means (n_bootstrap, adapters) of examples drawn with replacement from `gains`."""
    n = len(gains)
    return random.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) @ gains / n


def _compare(components: Array, matched: Sequence[Array]) -> Stability:
    loadings = np.stack(matched)
    cosines = np.abs(np.sum(loadings * components, axis=2))
    low, high = np.percentile(loadings, INTERVAL, axis=0)
    return Stability(
        median=np.median(cosines, axis=0),
        low=np.percentile(cosines, INTERVAL[0], axis=0),
        loading_low=low,
        loading_high=high,
        sign_share=np.mean(np.sign(loadings) == np.sign(components), axis=0),
        chance=_chance(*components.shape),
        n_bootstrap=len(matched),
    )


def _chance(r: int, tasks: int) -> float:
    if tasks == 1:
        return 1.0
    frames = ortho_group.rvs(tasks, size=_CHANCE_DRAWS, random_state=0)[:, :r]
    fixed = np.eye(r, tasks)
    return float(np.median([np.abs(np.sum(match_components(fixed, f) * fixed, axis=1)) for f in frames]))
