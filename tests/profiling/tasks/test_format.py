"""The metric of what can be told without a right answer: the format that was asked for."""

from pathlib import Path
from typing import Any

import pytest
from traitroute.profiling.tasks.metrics.format import Format, options_in
from traitroute.profiling.tasks.metrics.metric import Example
from traitroute.profiling.tasks.sources import FolderSource
from traitroute.profiling.tasks.task import Task

OPTIONS = ["A", "a boat", "B", "a train"]


def judged(asked: Any, output: str) -> tuple[bool, bool]:
    task = Task(name="t", rows=FolderSource(folder=Path()), metric=Format(asked=asked))
    example = Example(prompt="p", target="", answer="", columns={"options": OPTIONS})
    (judgement,) = task.judge([output], [example])
    assert judgement.parse_failure is not judgement.lenient
    return judgement.strict, judgement.lenient


@pytest.mark.parametrize(
    ("asked", "output", "strict", "lenient"),
    [
        ("json", '{"a": 1}', True, True),
        ("json", "[1, 2]", True, True),
        ("json", '```json\n{"a": 1}\n```', False, True),
        ("json", "```\n[1]\n```", False, True),
        ("json", 'Here: {"a": 1', False, False),
        ("json", "12", False, False),
        ("json", "[" * 100_000, False, False),
        ("option", "b.", True, True),
        ("option", "A boat", True, True),
        ("option", "I would take a train.", False, True),
        ("option", "(B)", True, True),
        ("option", "**(B)** ", True, True),
        ("option", "(B) a train.", True, True),
        ("option", "(B) a boat, I think", False, True),
        ("option", "()", False, False),
        ("option", "Neither", False, False),
        ("text", " so ", True, True),
        ("text", " \n", False, False),
    ],
)
def test_an_answer_is_in_the_format_asked_for(asked: str, output: str, strict: bool, lenient: bool) -> None:
    assert judged(asked, output) == (strict, lenient)


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("Which one?\nA. red\nB. blue", ["A", "red", "B", "blue"]),
        ("Which one?\n(A) red\n(B) blue", ["A", "red", "B", "blue"]),
        ("Choose an option.\n- A: red\n- B: blue", ["A", "red", "B", "blue"]),
        ("Options:\n- red\n- blue", ["red", "blue"]),
        ("\n".join(f"{c}) {c}{c}" for c in "ABCDEFGHIJKL"), [o for c in "ABCDEFGHIJKL" for o in (c, c + c)]),
        ("Answer with one of: positive, negative or neutral.", ["positive", "negative", "neutral"]),
        ("Options: yes / no", ["yes", "no"]),
        ("Tell me of your options to get there.", []),
        ("Steps:\n- boil\n- peel", []),
        ("B. was here", []),
        ("one of: " + "a" * 300, []),
        ("- " * 100_000, []),
    ],
)
def test_options_are_read_off_a_prompt_that_lists_them(prompt: str, options: list[str]) -> None:
    assert options_in(prompt) == options
