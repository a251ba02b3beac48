"""Requests grouped by the template that they were made from."""

import random

import pytest
from sklearn.metrics import adjusted_rand_score
from traitroute.profiling.tasks.templates import group_by_template, template_words

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew", "alder")
TEMPLATES = (
    "Summarise this note in one short sentence for the weekly letter:\n{}",
    "{}\nIs the tone of this message friendly or unfriendly? Answer with one word.",
    "Write an SQL query for the table of trees that answers: {}",
)


def texts_of(*counts: int) -> tuple[list[str], list[int]]:
    draw = random.Random(0)
    made = [
        (template.format(" ".join(draw.choices(WORDS, k=draw.randint(4, 30)))), i)
        for i, (template, count) in enumerate(zip(TEMPLATES, counts, strict=False))
        for _ in range(count)
    ]
    draw.shuffle(made)
    return [text for text, _ in made], [template for _, template in made]


@pytest.mark.parametrize("counts", [(60, 60, 60), (400, 30, 12), (60,)], ids=["as many", "one of most", "one"])
def test_each_template_is_one_group(counts: tuple[int, ...]) -> None:
    texts, templates = texts_of(*counts)
    groups = group_by_template(texts)
    assert adjusted_rand_score(templates, groups) == 1
    assert [int((groups == g).sum()) for g in range(len(counts))] == sorted(counts, reverse=True)


def test_what_no_others_are_like_is_in_no_group() -> None:
    texts, _ = texts_of(40, 40)
    groups = group_by_template([*texts, "Hello there!", "", "?" * 50_000])
    assert groups[-3:].tolist() == [-1, -1, -1]


def test_no_texts_and_equal_texts_are_taken_calmly() -> None:
    assert group_by_template([]).tolist() == []
    assert group_by_template(WORDS[:3]).tolist() == [-1, -1, -1]
    assert group_by_template(["the same words every time"] * 8).tolist() == [0] * 8


def test_the_words_that_name_a_template_are_none_that_one_user_wrote() -> None:
    texts, _ = texts_of(30)
    assert template_words(texts) == ["summarise", "this", "note", "in"]
    assert template_words(["secret plan"]) == []
