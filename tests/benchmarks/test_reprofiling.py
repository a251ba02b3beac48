"""The ways of the re-profiling benchmark never look at more than they are given."""

from dataclasses import replace

import numpy as np
import pytest
from reprofiling.judging import judge
from reprofiling.left_out import LeftOut, left_out
from reprofiling.ways import WAYS
from routing.table import SMOLLM2
from routing.trials import design_table

pytestmark = pytest.mark.slow

ADAPTER = 3


@pytest.fixture(scope="module")
def case() -> LeftOut:
    return left_out(design_table(SMOLLM2), ADAPTER)


@pytest.mark.parametrize("name", WAYS)
def test_a_way_measures_the_share_it_is_given_and_reads_nothing_else(case: LeftOut, name: str) -> None:
    found = WAYS[name](case, 0.1, 0)
    assert len(np.unique(found.rows)) == len(found.rows) <= 0.11 * case.size
    unseen = np.ones(case.size, dtype=bool)
    unseen[found.rows] = False
    changed = replace(case, own=np.where(unseen, 1 - case.own, case.own))
    again = WAYS[name](changed, 0.1, 0)
    assert np.array_equal(again.gains, found.gains, equal_nan=True)


def test_a_tenth_of_the_row_places_an_adapter_better_than_a_random_tenth(case: LeftOut) -> None:
    ours, random = (judge(case, WAYS[n], 0.1, 0) for n in ("anchors in rounds (ours)", "random"))
    assert ours.unchanged > random.unchanged
    assert ours.gains < 0.75 * random.gains


def test_the_full_row_is_no_estimate(case: LeftOut) -> None:
    found = judge(case, WAYS["anchors in rounds (ours)"], 1.0, 0)
    assert found.gains == pytest.approx(0.0, abs=1e-9)
    assert (found.unchanged, found.examples) == (1.0, 1.0)
