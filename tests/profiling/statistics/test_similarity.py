"""Similarities come with intervals that cover, and with the ceiling that sampling sets."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from traitroute.adapters import InputError
from traitroute.profiling.statistics.similarity import cosines, similarity

CENTRES = np.array([[1.0, 0.2, 0.0, 0.5], [1.0, 0.3, 0.1, 0.5], [0.0, 1.0, -0.5, 0.2]])


def drawn(n: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: centre + random.normal(size=(n, 4)) for name, centre in zip("abc", CENTRES, strict=True)}


def test_cosines_are_those_of_scikit_learn_and_0_with_a_zero_row() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(cosines(vectors), cosine_similarity(vectors))
    vectors[2] = 0
    assert not cosines(vectors)[2].any()


def test_values_compare_the_mean_vectors() -> None:
    groups = drawn(50, np.random.default_rng(0))
    found = similarity(groups, cosines, n_resamples=20)
    means = np.stack([g.mean(axis=0) for g in groups.values()])
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found.values[off], cosine_similarity(means)[off])
    np.testing.assert_allclose(found.values, found.values.T)
    assert (found.low <= found.values).all()
    assert (found.values <= found.high).all()


def test_interval_covers_the_value_of_other_samples_of_that_size() -> None:
    random = np.random.default_rng(2)
    others = [cosines(np.stack([g.mean(0) for g in drawn(40, random).values()])) for _ in range(500)]
    expected, covered = np.mean(others, axis=0), 0
    for _ in range(60):
        found = similarity(drawn(40, random), cosines, n_resamples=100, n_splits=2)
        covered += int(found.low[0, 2] <= expected[0, 2] <= found.high[0, 2])
    assert covered >= 51  # 95% of 60 is 57


def test_two_samples_of_one_dataset_reach_its_ceiling() -> None:
    random = np.random.default_rng(3)
    pairs, ceilings = [], []
    for _ in range(30):
        groups = drawn(60, random) | {"again": CENTRES[0] + random.normal(size=(60, 4))}
        found = similarity(groups, cosines, n_resamples=2)
        pairs.append(found.values[0, 3])
        ceilings.append(found.ceiling[0])
    assert np.mean(pairs) == pytest.approx(np.mean(ceilings), abs=0.02)


def test_the_same_seed_gives_the_same_matrix() -> None:
    groups = drawn(20, np.random.default_rng(0))
    first, second = (similarity(groups, cosines, n_resamples=5, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.low, second.low)
    np.testing.assert_array_equal(first.values, second.values)


def test_datasets_that_cannot_be_halved_or_compared_are_refused() -> None:
    with pytest.raises(InputError, match="too few texts in b"):
        similarity({"a": np.ones((3, 2)), "b": np.ones((1, 2))}, cosines)
    with pytest.raises(InputError, match="one f"):
        similarity({"a": np.ones((3, 2)), "b": np.ones((3, 4))}, cosines)
