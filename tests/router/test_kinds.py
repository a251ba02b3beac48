"""Kinds of request: how like them a request is, and how much each speaks for it."""

import numpy as np
import pytest
from traitroute.router.kinds import Kinds, unit

RANDOM = np.random.default_rng(0)
PLACES = unit(RANDOM.normal(size=(6, 12)))


def kinds_of(places: np.ndarray, groups: list[int], *, requests: int = 10, spread: float = 0.0) -> Kinds:
    """Kinds whose requests lie around `places` (k, 12), alike in words and in meaning."""
    kinds = np.repeat(np.arange(len(places)), requests)
    rows = unit(places[kinds] + spread * RANDOM.normal(size=(len(kinds), places.shape[1])))
    return Kinds.of(rows, rows, kinds, np.array(groups)[kinds])


def test_a_request_is_as_like_its_own_kind_as_its_other_requests_are() -> None:
    kinds = kinds_of(PLACES, list(range(6)), spread=0.2)
    assert kinds.typical.tolist() == pytest.approx([0.85, 0.85], abs=0.05)
    likeness = kinds.likeness(PLACES, PLACES)
    np.testing.assert_allclose(np.diag(likeness), 1.0)
    assert np.all((likeness > 0) & (likeness <= 1))
    assert np.all(likeness[~np.eye(6, dtype=bool)] < 0.5)


def test_general_shares_sum_to_one_and_near_ones_to_zero() -> None:
    kinds = kinds_of(PLACES, [0, 0, 0, 1, 1, 2])
    (general, near), _ = kinds.shares(kinds.likeness(PLACES[2], PLACES[2]))
    np.testing.assert_allclose(general, [1 / 9, 1 / 9, 1 / 9, 1 / 6, 1 / 6, 1 / 3])
    assert near.sum() == pytest.approx(0, abs=1e-12)
    assert near.argmax() == 2


def test_a_kind_that_is_near_is_believed_the_more_the_more_requests_it_has() -> None:
    few, many = (kinds_of(PLACES, list(range(6)), requests=n) for n in (2, 200))
    few_shares, many_shares = (kinds.shares(kinds.likeness(PLACES[0], PLACES[0])) for kinds in (few, many))
    assert few_shares[0][1, 0] < many_shares[0][1, 0] < 1
    assert few_shares[1] > many_shares[1] > 0


def test_many_wordings_of_one_task_count_little_more_than_one() -> None:
    twins = np.vstack([PLACES[:1], np.repeat(PLACES[1:2], 9, axis=0)])
    between = unit(PLACES[0] + PLACES[1])
    one, many = kinds_of(PLACES[:2], [0, 1]), kinds_of(twins, [0] + [1] * 9)
    of_one, of_many = (kinds.shares(kinds.likeness(between, between))[0][1] for kinds in (one, many))
    # Nine kinds that cannot be told apart are one that was measured nine times.
    assert of_many[1:].sum() - of_many[0] < 2 * (abs(of_one[0]) + 0.3)
    assert of_many[1:].sum() < 3 * abs(of_many[0]) + 0.5


def test_what_is_like_nothing_profiled_is_told_what_holds_in_general() -> None:
    kinds = kinds_of(PLACES, list(range(6)))
    away = unit(np.ones(12) - PLACES.sum(axis=0))
    shares, unknown = kinds.shares(kinds.likeness(-away, -away))
    assert np.abs(shares[1]).max() < 0.3
    assert unknown > 0.9
