"""Metrics that tell right from wrong by a rule."""

import time
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import MetricError
from traitroute.profiling.tasks.metrics import read_metric

from .conftest import Judge, a_task

re2 = pytest.importorskip("re2", reason="needs the extra: pip install 'traitroute[metrics]'")

LISTED = "Which one burns?\n(A) water\n(B) dry wood\n(C) sand"
DOTTED = "Pick.\nA. yes\nB. no\nAnswer:"
NUMBERED = "Pick a number.\n1. cats\n2. dogs"
INLINE = "Is it so? (A) yes (B) no, never"
ARTICLE = "I saw A. Smith.\nA: a cat\nB: an ant"

CASES = [
    # metric, output, answer, prompt, strict, lenient, parse failure
    ("number_in_text", "It is 5, so 5 + 3 = 8.", "8", "", True, True, False),
    ("number_in_text", "8 in all, of which 3 red", "8", "", False, True, False),
    ("number_in_text", "$1,234.50", "1234.5", "", True, True, False),
    ("number_in_text", "eight", "8", "", False, False, True),
    ("contains", "I think Paris is right", "Paris", "", True, True, False),
    ("contains", "i think paris is right", "Paris", "", False, True, False),
    ("contains", "Parisians", "Paris", "", False, False, False),
    ("contains", "", "Paris", "", False, False, True),
    ("choice", "B", "B", LISTED, True, True, False),
    ("choice", " (B). ", "B", LISTED, True, True, False),
    ("choice", "dry wood", "B", LISTED, True, True, False),
    ("choice", "Dry wood.", "B", LISTED, True, True, False),
    ("choice", "B) dry wood", "B", LISTED, True, True, False),
    ("choice", "B) sand", "B", LISTED, False, True, False),
    ("choice", "The answer is B, for it burns", "dry wood", LISTED, False, True, False),
    ("choice", "Answer: (B)", "B", LISTED, False, True, False),
    ("choice", "It is dry wood that burns, not sand", "B", LISTED, False, True, False),
    ("choice", "sand, or B", "B", LISTED, False, False, False),
    ("choice", "A", "B", LISTED, False, False, False),
    ("choice", "A fire needs fuel", "B", LISTED, False, False, True),
    ("choice", "D", "B", LISTED, False, False, True),
    ("choice", "", "B", LISTED, False, False, True),
    ("choice", "B.", "B", DOTTED, True, True, False),
    ("choice", "no", "B", DOTTED, True, True, False),
    ("choice", "2", "2", NUMBERED, True, True, False),
    ("choice", "dogs", "2", NUMBERED, True, True, False),
    ("choice", "(B)", "B", INLINE, True, True, False),
    ("choice", "an ant", "B", ARTICLE, True, True, False),
    ({"name": "regex", "pattern": r"\d{4}-\d\d"}, "2024-05", "", "", True, True, False),
    ({"name": "regex", "pattern": r"\d{4}-\d\d"}, "in 2024-05", "", "", False, True, False),
    ({"name": "regex", "pattern": r"\d{4}-\d\d"}, "in May", "", "", False, False, True),
    ({"name": "regex", "pattern": r"#### (\S+)"}, "so\n#### Yes", "Yes", "", True, True, False),
    ({"name": "regex", "pattern": r"#### (\S+)"}, "so\n#### yes", "Yes", "", False, True, False),
    ({"name": "regex", "pattern": r"#### (\S+)"}, "so\n#### no", "Yes", "", False, False, False),
    ({"name": "regex", "pattern": r"#### (\S+)"}, "Yes", "Yes", "", False, False, True),
    ({"name": "regex", "pattern": "(x)?y"}, "y", "", "", True, True, False),
]


@pytest.mark.parametrize(("metric", "output", "answer", "prompt", "strict", "lenient", "failed"), CASES)
def test_output_is_judged_as_the_table_says(
    judge: Judge, metric: Any, output: str, answer: str, prompt: str, strict: bool, lenient: bool, failed: bool
) -> None:
    judged = judge(metric, output, answer, prompt)
    assert (judged.strict, judged.lenient, judged.parse_failure) == (strict, lenient, failed)
    assert judged.score == float(strict)


def test_one_of_several_references_is_enough(judge: Judge) -> None:
    metric = {"name": "contains", "references": "aliases"}
    assert judge(metric, "in NYC", aliases=["New York", "NYC"]).strict
    assert not judge(metric, "in Boston", aliases=["New York", "NYC"]).lenient


@pytest.mark.parametrize("options", [["cat", "dog"], {"text": ["cat", "dog"], "label": ["A", "B"]}])
def test_choices_may_stand_in_a_column(judge: Judge, options: Any) -> None:
    metric = {"name": "choice", "options": "choices"}
    assert judge(metric, "dog", "B", choices=options).strict
    assert judge(metric, "B", "dog", choices=options).strict


def test_a_prompt_without_choices_is_named_with_the_cure(judge: Judge) -> None:
    with pytest.raises(MetricError, match=r'task t, metric "choice": the answer .*options: COLUMN.*example: .Why'):
        judge("choice", "B", "B", prompt="Why?")


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "a{2000}{2000}"])
def test_a_pattern_that_is_no_pattern_is_refused_as_the_suite_is_read(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"metric 'regex': pattern: RE2, .* does not take it"):
        a_task({"name": "regex", "pattern": pattern})


@pytest.mark.parametrize(
    ("metric", "output"),
    [
        ({"name": "regex", "pattern": "^(a+)+$"}, "a" * 1_000_000 + "!"),
        ({"name": "regex", "pattern": "(.*)(.*)(.*)x$"}, "é" * 100_000),
        ("choice", "answer" + " " * 1_000_000 + "x"),
        ("choice", "(" * 1_000_000),
        ("choice", "dry wood" * 100_000),
        ("contains", "dry wood" * 100_000),
        ("number_in_text", "1," * 500_000),
        ("number_in_text", "9" * 1_000_000),
    ],
)
def test_hostile_outputs_are_judged_in_time(judge: Judge, metric: Any, output: str) -> None:
    start = time.perf_counter()
    judge(metric, output, "B" if metric == "choice" else "7", LISTED)
    assert time.perf_counter() - start < 5


def test_half_a_character_is_no_match_and_no_failure(judge: Judge) -> None:
    assert judge({"name": "regex", "pattern": "a"}, "\ud83da").lenient


def test_settings_are_part_of_the_rules() -> None:
    one, other = (read_metric({"name": "regex", "pattern": p}) for p in ("a", "b"))
    assert one.rules != other.rules
