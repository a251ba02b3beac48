"""Two tables of outcomes are lined up by what was asked, whatever the order, and by what adapters were trained on."""

from dataclasses import replace

import numpy as np
import pytest
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import design_table
from traitroute.profiling.twins import rank_pairs
from twins import halves, line_up

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    """The committed table, a few tasks of it."""
    whole = design_table(SMOLLM2)
    return whole.of_requests(np.flatnonzero((whole.kind == "main") & (whole.task % 6 == 0)))


def test_requests_are_matched_by_what_was_asked(table: OutcomeTable) -> None:
    order = np.random.default_rng(0).permutation(len(table))[: 9 * len(table) // 10]
    found = line_up(table.of_requests(order), table, "strict")
    assert len(found.texts) == len(order)
    np.testing.assert_array_equal(found.small, found.large)
    ranking = rank_pairs(found, n_permutations=99)
    assert ranking.alike is not None
    assert ranking.alike.value == 1


def test_adapters_of_other_data_sets_are_left_out(table: OutcomeTable) -> None:
    other = replace(table, homes=(("elsewhere",), *table.homes[1:]))
    found = line_up(other, table, "strict")
    assert found.adapters == table.adapters[1:]
    assert found.other_training == table.adapters[:1]
    with pytest.raises(SystemExit, match="0 adapters of the same data sets"):
        line_up(replace(table, homes=(("elsewhere",),) * len(table.adapters)), table, "strict")


def test_a_table_is_set_beside_itself_on_other_rows(table: OutcomeTable) -> None:
    found = halves(table, "strict")
    assert found.small.shape == found.large.shape
    assert not np.array_equal(found.small, found.large)
    ranking = rank_pairs(found, n_permutations=99)
    assert ranking.alike is not None
    assert ranking.alike.value > 0.9
    assert 0.6 < ranking.all_alike < 1
