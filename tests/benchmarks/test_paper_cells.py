"""What runs on several machines measured adds up in one table, each beside its own base."""

from pathlib import Path

import numpy as np
import paper_cells
import pytest
from traitroute.adapters import Cell, Outcomes, Registry

from ..made_up_outcomes import made_up_outcomes

ROWS = 40


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The cells of two runs: in both the adapter is right on 20 rows more than base, and once wrote fewer tokens."""
    file = tmp_path / "cells.tsv"
    for run, right, tokens in (("first", 10, 30), ("second", 5, 20)):
        place = tmp_path / f"{run}.db"
        with Registry.create(place) as registry:
            registry.put_task("sums", "digest", {})
            for name, more, wrote in ((None, 0, 50), ("terse", 20, tokens)):
                registry.put_cell(Cell(f"{name}", name, "sums", outcomes(right + more, wrote)))
            registry.put_cell(Cell("other", None, "what no task is", outcomes(1, 1)))
        assert paper_cells.keep(place, run, file) == 2
    return file


def outcomes(right: int, tokens: int) -> Outcomes:
    return made_up_outcomes(np.arange(ROWS) < right, lenient=True, output_tokens=tokens)


def test_a_run_takes_the_place_of_what_it_had_before_and_of_nothing_else(table: Path, tmp_path: Path) -> None:
    before = table.read_text()
    assert len(before.splitlines()) == 4
    assert paper_cells.keep(tmp_path / "second.db", "second", table) == 2
    assert table.read_text() == before
    found = paper_cells.read(table)["first"]["terse", "sums"]
    assert found.strict.sum() == 30
    assert found.lenient.all()


def test_a_gain_is_held_against_base_of_the_same_run(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["paper_cells.py", "--table", str(table), "--beside", "terse=base", "--tasks", "sums"]
    )
    paper_cells.main()
    printed = capsys.readouterr().out
    for part in ("25%, 50", "12%, 50", "+50 [+31, +64], 30", "+50 [+31, +64], 20"):
        assert part in printed
    assert printed.count("+50 [") == 4
    assert printed.count("terse less base") == 2


def test_a_matrix_holds_what_one_run_measured_whole() -> None:
    right = {("base", "sums"): 10, ("sums", "sums"): 30, ("terse", "sums"): 10}
    right |= {(adapter, "words"): 20 for adapter in ("base", "sums", "terse")}
    right |= {("base", "letters"): 5, ("terse", "letters"): 5}
    cells = {
        (adapter, task): paper_cells.Kept("run", adapter, task, 9.0, np.arange(ROWS) < n, np.arange(ROWS) < n)
        for (adapter, task), n in right.items()
    }
    found = paper_cells.whole_matrix(cells, ("sums", "terse"), ("letters", "sums", "words"), "strict")
    assert found is not None
    assert found.tasks == ("sums", "words")
    assert found.gains.tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert paper_cells.shown(found).title == "2 x 2, shown: 1 gains, 0 side effects"
    assert paper_cells.whole_matrix(cells, ("sums", "terse"), ("letters", "sums"), "strict") is None


def test_gains_of_several_adapters_are_one_over_the_rows_of_all_tasks() -> None:
    right = {("base", "sums"): 10, ("terse", "sums"): 30, ("wordy", "sums"): 10}
    right |= {("base", "words"): 20, ("terse", "words"): 20, ("wordy", "words"): 20}
    cells = {
        key: paper_cells.Kept("run", *key, 9.0, np.arange(ROWS) < n, np.arange(ROWS) < n) for key, n in right.items()
    }
    table = paper_cells.together(cells, ("terse", "wordy"), ("sums", "words"), "strict")
    adapters, _, rows, points = (next(iter(column.cells)) for column in table.columns)
    assert (adapters, rows) == ("terse, wordy", f"{2 * ROWS}")
    assert str(points).startswith("+12.5 [+")
    assert paper_cells.together(cells, ("terse",), ("sums", "letters"), "strict").row_count == 0
