"""How likely a request is of a kind that was never profiled."""

import numpy as np
import pytest
from traitroute.router.novelty import LEAST_SPREAD, Novelty


def test_share_is_half_between_the_kinds_and_tells_them_apart() -> None:
    random = np.random.default_rng(0)
    known, new = random.normal(0.3, 0.05, 4000), random.normal(0.6, 0.05, 4000)
    novelty = Novelty.of(known, new)
    assert novelty.share(np.array((novelty.known + novelty.new) / 2)) == pytest.approx(0.5)
    assert novelty.share(known).mean() < 0.02
    assert novelty.share(new).mean() > 0.98


def test_share_is_the_probability_of_the_new_kind() -> None:
    random = np.random.default_rng(0)
    known, new = random.normal(0.4, 0.1, 200_000), random.normal(0.55, 0.1, 200_000)
    both, is_new = np.concatenate([known, new]), np.repeat([0.0, 1.0], 200_000)
    share = Novelty.of(known, new).share(both)
    for low in (0.2, 0.4, 0.6):
        at = (share >= low) & (share < low + 0.2)
        assert is_new[at].mean() == pytest.approx(share[at].mean(), abs=0.01)


def test_kinds_that_do_not_differ_are_equally_likely() -> None:
    same = np.full(5, 0.4)
    novelty = Novelty.of(same, same)
    assert novelty.spread == LEAST_SPREAD
    np.testing.assert_array_equal(novelty.share(np.array([0.0, 0.4, 1.0])), 0.5)
    assert Novelty.of(same, same - 0.2).share(np.array(0.9)) == 0.5
