"""Judging one output, as a task would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.profiling import Example, Judgement, Task
from traitroute.profiling.tasks.sources import FolderSource

Judge = Callable[..., Judgement]


def a_task(metric: Any, **settings: Any) -> Task:
    return Task(name="t", rows=FolderSource(folder=Path("nowhere")), metric=metric, **settings)


@pytest.fixture
def judge() -> Judge:
    """Judges an output: `judge(metric, output, answer, prompt=…, **columns)`."""

    def one(metric: Any, output: str, answer: str = "", prompt: str = "?", **columns: Any) -> Judgement:
        example = Example(prompt=prompt, target=answer, answer=answer, columns=columns)
        [judgement] = a_task(metric).judge([output], [example])
        return judgement

    return one
