"""Metrics for free text give what their libraries give, from 0 to 1."""

import sys
import time
from typing import Any

import pytest
from traitroute.adapters import MetricError
from traitroute.profiling.tasks.metrics import read_metric
from traitroute.profiling.tasks.scoring import token_f1

from .conftest import Judge

for library in ("rouge_score", "sacrebleu"):
    pytest.importorskip(library, reason="needs the extra: pip install 'traitroute[metrics]'")

NAMES = ["f1", "rouge_l", "chrf", "bleu"]
GOLD = "the old man walked slowly to the river"
PAIRS = [
    ("an old man walks to the river", GOLD),
    ("completely different words here", GOLD),
    ("river the to slowly walked man old the", GOLD),
    ("the old man walked slowly to the river and then back home again", GOLD),
    ("x", GOLD),
]


def of_library(name: str, output: str, gold: str) -> float:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu, sentence_chrf

    if name == "rouge_l":
        return RougeScorer(["rougeL"], use_stemmer=True).score(gold, output)["rougeL"].fmeasure
    if name == "f1":
        return token_f1(output, gold)
    return (sentence_bleu if name == "bleu" else sentence_chrf)(output, [gold]).score / 100


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("output", "gold"), PAIRS)
def test_scores_are_those_of_the_library(judge: Judge, name: str, output: str, gold: str) -> None:
    assert judge(name, output, gold).score == pytest.approx(of_library(name, output, gold))


@pytest.mark.parametrize("name", NAMES)
def test_strict_is_all_and_lenient_is_half(judge: Judge, name: str) -> None:
    same, near, far = (judge(name, text, GOLD) for text in (GOLD, GOLD + " again", "other words"))
    assert (same.score, same.strict, same.lenient) == (pytest.approx(1), True, True)
    assert (near.strict, near.lenient) == (False, True)
    assert (far.strict, far.lenient, far.parse_failure) == (False, False, False)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_output_scores_nothing(judge: Judge, name: str) -> None:
    judged = judge(name, " ", GOLD)
    assert (judged.score, judged.parse_failure) == (0, True)


def test_rouge_by_hand(judge: Judge) -> None:
    # The longest common subsequence is "the cat the mat": 4 of 5 words, and of 6.
    judged = judge("rouge_l", "the cat near the mat", "the cat sat on the mat")
    assert judged.score == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))


def test_where_no_spaces_are_put_letters_are_words(judge: Judge) -> None:
    # Six of seven and of six letters are shared; as words, none would be.
    assert judge("f1", "我喜欢吃苹果", "我喜欢吃青苹果").score == pytest.approx(2 * 6 / 13)
    assert judge("f1", "iPhone 15很好", "iPhone很好").score == pytest.approx(2 * 3 / 7)
    assert judge("f1", "кошка спит", "кошка ест").score == pytest.approx(0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_nearest_reference_counts(judge: Judge, name: str) -> None:
    metric = {"name": name, "references": "all"}
    assert judge(metric, GOLD, "none of it", all=["other words", GOLD]).strict


@pytest.mark.parametrize("given", [3, [], ["a", 3], None])
def test_a_column_that_holds_no_texts_is_named(judge: Judge, given: Any) -> None:
    with pytest.raises(MetricError, match="column 'all' holds neither text nor a list of texts"):
        judge({"name": "f1", "references": "all"}, "x", all=given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output", ["the man " * 125_000, "x" * 1_000_000, "\0" * 1_000_000, "是" * 300_000])
def test_a_megabyte_is_judged_in_time(judge: Judge, name: str, output: str) -> None:
    start = time.perf_counter()
    judge(name, output, GOLD * 5)
    assert time.perf_counter() - start < 5


def test_the_version_of_the_library_is_part_of_the_rules() -> None:
    assert read_metric("rouge_l").rules[1].startswith("rouge-score 0.")
    assert read_metric("bleu").rules[1].startswith("sacrebleu ")
    assert read_metric("f1").rules[0] == "f1"


@pytest.mark.parametrize(("name", "module"), [("rouge_l", "rouge_score.rouge_scorer"), ("bleu", "sacrebleu")])
def test_a_missing_library_says_how_to_install_it(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    from traitroute.profiling.tasks.metrics import overlap

    overlap._rouge.cache_clear()
    overlap._bleu.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'traitroute\[metrics\]'"):
        judge(name, "a", "b")


@pytest.mark.parametrize(
    ("settings", "output", "gold"),
    [
        ({"name": "rouge_l", "stemmer": False}, "walks", "walked"),
        ({"name": "bleu", "tokenize": "char"}, "是的呀吗", "是的呀吧"),
        ({"name": "chrf", "word_order": 2}, "an old man", "the old man"),
    ],
)
def test_settings_change_the_score(judge: Judge, settings: dict[str, Any], output: str, gold: str) -> None:
    assert judge(settings, output, gold).score != judge(settings["name"], output, gold).score
