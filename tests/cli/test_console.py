"""Progress of long work as lines in a log, and matrices as wide as there is room."""

import io
import re

import pytest
from rich.console import Console
from traitroute.cli import console
from traitroute.cli.console import ProgressLines, progress_bars, show_matrix


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed, where output is no terminal."""
    file = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=file, width=150))
    return file


def lines(log: io.StringIO) -> list[str]:
    return re.sub(r"\d+ s", "T s", log.getvalue()).splitlines()


def test_work_shows_in_a_log_when_it_begins_and_when_it_is_done(log: io.StringIO) -> None:
    with progress_bars() as progress:
        bar = progress.add_task("measure cells", total=3)
        for _ in range(3):
            progress.advance(bar)
        progress.update(bar, visible=False)
    assert lines(log) == ["measure cells: begins", "measure cells: done in T s"]


def test_work_shows_in_a_log_while_it_goes_on(log: io.StringIO) -> None:
    progress = ProgressLines(console.console, every_s=0)
    train = progress.add_task("train", total=1.0)
    progress.update(train, completed=0.25)
    measure = progress.add_task("measure", total=None)
    progress.update(measure, completed=2, total=9)
    progress.advance(measure)
    assert lines(log) == [
        "train: begins",
        "train: 25%, T s",
        "measure: begins",
        "measure: 2 of 9, T s",
        "measure: 3 of 9, T s",
    ]


def test_a_log_is_not_filled_by_quick_steps(log: io.StringIO) -> None:
    progress = ProgressLines(console.console, every_s=60)
    bar = progress.add_task("measure", total=1000)
    for _ in range(999):
        progress.advance(bar)
    assert lines(log) == ["measure: begins"]


def test_a_matrix_of_many_tasks_is_printed_in_parts_that_break_no_name(log: io.StringIO) -> None:
    tasks = [f"task_with_a_long_name_{i}" for i in range(12)]
    rows = {"base": [f"{i}" for i in range(12)], "polite": [f"[green]{i + 50} (+50)[/]" for i in range(12)]}
    show_matrix("scores", rows, tasks)
    printed = log.getvalue()
    assert max(map(len, printed.splitlines())) <= 150
    assert all(task in printed for task in tasks)
    assert all(f"{i + 50} (+50)" in printed for i in range(12))
    assert (printed.count("scores"), printed.count("polite"), printed.count("adapter \\ task")) == (1, 3, 3)


def test_a_matrix_wider_than_the_terminal_in_one_column_is_printed_nevertheless(log: io.StringIO) -> None:
    show_matrix("scores", {"polite": ["1"]}, ["t" * 200])
    assert "".join(re.findall("t{2,}", log.getvalue())).count("t") >= 200
