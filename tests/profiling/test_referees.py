"""What is said of answers without right ones, and where nothing is."""

import numpy as np
import pytest
from traitroute.profiling.referees import ByAgreement, ByFormat
from traitroute.profiling.tasks.metrics import Example

from .conftest import adapter

THREE = [adapter("one", "1"), adapter("two", "2"), adapter("three", "3")]


def examples(*prompts: str) -> list[Example]:
    return [Example(prompt=prompt, target="", answer="") for prompt in prompts]


def test_whom_more_of_the_others_agree_with_is_better() -> None:
    one, two, three = ByAgreement().verdicts(
        examples("a", "b"), THREE, [["Yes", "x"], [" yes", "y"], ["no", "z"]], ["no", "y"]
    )
    # Of the two others of each: one says as `one` says, one as base.
    assert one.tolist() == [0.0, -0.5]
    assert two.tolist() == [0.0, 0.0]
    assert three.tolist() == [0.0, -0.5]


def test_nobody_votes_on_himself_under_another_name_and_empty_answers_agree_with_none() -> None:
    twins = [adapter("one", "1"), adapter("again", "1"), adapter("three", "3")]
    one, again, three = ByAgreement().verdicts(examples("a"), twins, [["yes"], ["yes"], [""]], ["no"])
    assert one.tolist() == again.tolist() == [0.0]
    assert three.tolist() == [0.0]


def test_who_did_not_answer_is_not_judged_and_does_not_vote() -> None:
    one, two, three = ByAgreement().verdicts(examples("a"), THREE, [["yes"], [None], ["yes"]], ["no"])
    assert (one.tolist(), three.tolist()) == ([1.0], [1.0])
    assert np.isnan(two).all()
    [alone] = ByAgreement().verdicts(examples("a"), THREE[:1], [["yes"]], ["no"])
    assert np.isnan(alone).all()


@pytest.mark.parametrize(
    ("prompt", "answer", "base", "verdict"),
    [
        ("Reply with JSON: who wrote it?", '{"who": "me"}', "It was me.", 1.0),
        ("Reply with JSON: who wrote it?", "It was me.", '{"who": "me"}', -1.0),
        ("Is it good? Choose from: good, bad", "Good.", "I think that it is", 1.0),
        ("Is it good? Choose from: good, bad", "good", "bad", 0.0),
        ("Tell me of it.", "good", "bad", None),
    ],
)
def test_who_keeps_the_format_that_is_asked_for_is_better(
    prompt: str, answer: str, base: str, verdict: float | None
) -> None:
    [said] = ByFormat().verdicts(examples(prompt), THREE[:1], [[answer]], [base])
    assert np.isnan(said).all() if verdict is None else said.tolist() == [verdict]
