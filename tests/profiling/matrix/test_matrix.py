"""The transfer matrix as arranged from cells."""

from collections.abc import Sequence

import numpy as np
import pytest
from traitroute.adapters import Cell, SuiteError
from traitroute.profiling.matrix.matrix import TransferMatrix

from ...made_up_outcomes import made_up_outcomes


def cell(adapter: str | None, task: str, right: Sequence[int]) -> Cell:
    outcomes = made_up_outcomes(right, lenient=True)
    return Cell(key=f"{adapter} {task}", adapter=adapter, task=task, outcomes=outcomes)


CELLS = [
    cell(None, "sums", [1, 0, 0, 0]),
    cell(None, "mood", [1, 1]),
    cell("z", "sums", [0, 1, 1, 0]),
    cell("z", "mood", [1, 1]),
    cell("a", "sums", [1, 0, 0, 0]),
    cell("a", "mood", [0, 0]),
]


def test_scores_are_strict_shares_and_gains_are_over_base() -> None:
    matrix = TransferMatrix.from_cells(CELLS)
    np.testing.assert_allclose(matrix.base, [0.25, 1.0])
    np.testing.assert_allclose(matrix.scores, [[0.5, 1.0], [0.25, 0.0]])
    np.testing.assert_allclose(matrix.gains, [[0.25, 0.0], [0.0, -1.0]])


def test_names_keep_the_order_in_which_they_come() -> None:
    matrix = TransferMatrix.from_cells(CELLS)
    assert (matrix.adapters, matrix.tasks) == (("z", "a"), ("sums", "mood"))


def test_example_gains_say_who_was_right_where() -> None:
    matrix = TransferMatrix.from_cells(CELLS)
    np.testing.assert_array_equal(matrix.example_gains[0], [[-1, 0], [1, 0], [1, 0], [0, 0]])
    means = [gains.mean(axis=0) for gains in matrix.example_gains]
    np.testing.assert_allclose(np.stack(means, axis=1), matrix.gains)


@pytest.mark.parametrize("missing", [0, 3])
def test_missing_cell_is_named(missing: int) -> None:
    lost = CELLS[missing]
    with pytest.raises(SuiteError, match=rf"1 cells .* \({lost.adapter!r}, '{lost.task}'\)"):
        TransferMatrix.from_cells([c for c in CELLS if c is not lost])
