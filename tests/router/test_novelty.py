"""How new a request is: known, reworded or of a new kind."""

import numpy as np
import pytest
from traitroute.router.novelty import CLASSES, SPREAD, TYPICAL, Novelty

Measured = dict[str, tuple[np.ndarray, np.ndarray]]


def drawn(means: np.ndarray, *, groups: int = 40, seed: int = 0) -> Measured:
    """Measures of fifty requests a group in each class, around `means` (classes, 3)."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), 50)
    return {
        name: (random.normal(m, SPREAD, (len(numbers), 3)), numbers) for name, m in zip(CLASSES, means, strict=True)
    }


def test_classes_are_told_apart_where_they_differ() -> None:
    measured = drawn(np.array([[0.2, 0.1, 0.1], [0.6, 0.5, 0.4], [0.9, 0.9, 0.9]]))
    novelty = Novelty.of(measured)
    for place, name in enumerate(CLASSES):
        found = novelty.probabilities(measured[name][0])
        np.testing.assert_allclose(found.sum(axis=1), 1.0)
        assert found[:, place].mean() > 0.8


def test_probabilities_are_shares_of_the_class() -> None:
    measured = drawn(TYPICAL, groups=400)
    novelty = Novelty.of(measured)
    rows = np.concatenate([measured[name][0] for name in CLASSES])
    of_new = np.repeat([0.0, 0.0, 1.0], len(measured["new"][0]))
    likely = novelty.probabilities(rows)[:, 2]
    for low in (0.2, 0.4, 0.6):
        at = (likely >= low) & (likely < low + 0.2)
        assert of_new[at].mean() == pytest.approx(likely[at].mean(), abs=0.03)


def test_classes_that_do_not_differ_are_equally_likely() -> None:
    measured = drawn(np.full((3, 3), 0.4), groups=5000)
    np.testing.assert_allclose(Novelty.of(measured).probabilities(np.full(3, 0.4)), 1 / 3, atol=0.05)


def test_a_class_that_could_not_be_played_is_as_on_the_public_prompts() -> None:
    known = {"known": drawn(TYPICAL)["known"]}
    found = Novelty.of(known).probabilities(TYPICAL)
    assert found.argmax(axis=1).tolist() == [0, 1, 2]
    assert Novelty.of({}).probabilities(TYPICAL).argmax(axis=1).tolist() == [0, 1, 2]


def test_one_group_does_not_outweigh_what_is_usual() -> None:
    odd = {"new": (np.zeros((50, 3)), np.zeros(50, int))}
    assert Novelty.of(odd).probabilities(TYPICAL[2])[2] > 0.3
