"""How commands print: messages, warnings, matrices, and the progress of long work as bars or as lines in a log."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

# Logs have no width of their own; the tables need about this much.
console = Console(width=None if sys.stdout.isatty() else 150)

EVERY_S = 10.0
"""Seconds between two lines on the same work, where progress is printed as lines."""


def say(text: str) -> None:
    """Print a message as it is."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning."""
    console.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_matrix(title: str, rows: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> None:
    """Print the cells of each adapter on `tasks`: tables of as many tasks as there is room for, one below the other."""
    corner = "adapter \\ task"
    adapters = _column_width([corner, *rows]) + 1
    table, taken = Table(title=title, title_justify="left"), adapters
    parts: list[list[int]] = [[]]
    for i, task in enumerate(tasks):
        width = _column_width([task, *(cells[i] for cells in rows.values())])
        if parts[-1] and taken + width > console.width:
            parts.append([])
            taken = adapters
        parts[-1].append(i)
        taken += width
    for part in parts:
        table.add_column(corner, overflow="fold")
        for i in part:
            table.add_column(tasks[i], justify="right", overflow="fold")
        for name, cells in rows.items():
            table.add_row(name, *(cells[i] for i in part))
        console.print(table)
        table = Table()


def _column_width(texts: Sequence[str]) -> int:
    """How wide a table's column is that breaks none of its texts, padding and border included."""
    return max(Text.from_markup(text).cell_len for text in texts) + 3


def progress_bars() -> Progress:
    """The progress of long work: bars on a terminal, else lines that show in a log where the work is."""
    if not console.is_terminal:
        return ProgressLines(console)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


class ProgressLines(Progress):
    """Prints a line when work begins, every few seconds while it goes on, and when it is done."""

    def __init__(self, console: Console, every_s: float = EVERY_S) -> None:
        super().__init__(console=console, disable=True)
        self._every_s = every_s
        self._printed_at: dict[TaskID, float] = {}

    def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
        """Add work and say that it begins."""
        added = super().add_task(description, *args, **options)
        self._print(self._tasks[added])
        return added

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change what is known of some work."""
        before = self._tasks[task_id].finished
        super().update(task_id, **changes)
        self._print_if_due(self._tasks[task_id], before)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count further steps as done."""
        before = self._tasks[task_id].finished
        super().advance(task_id, advance)
        self._print_if_due(self._tasks[task_id], before)

    def _print_if_due(self, task: Task, was_finished: bool) -> None:
        ends = task.finished and not was_finished
        if ends or (not task.finished and time.monotonic() - self._printed_at[task.id] >= self._every_s):
            self._print(task)

    def _print(self, task: Task) -> None:
        self._printed_at[task.id] = time.monotonic()
        state = "begins"
        if task.finished:
            state = f"done in {task.finished_time or 0:.0f} s"
        elif task.completed:
            steps = f"{task.percentage:.0f}%" if task.total == 1 else f"{task.completed:g} of {task.total or '?'}"
            state = f"{steps}, {task.elapsed or 0:.0f} s"
        say(f"{task.description}: {state}")
