"""Every metric on outputs as models really give them."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.profiling.tasks.scoring import judge, token_f1

TOXIC = ("not toxic", "toxic")

CASES = [
    # metric, output, answer, labels, strict, lenient, parse failure
    ("label", "toxic", "toxic", TOXIC, True, True, False),
    ("label", " Toxic. ", "toxic", TOXIC, True, True, False),
    ("label", "It is toxic, not fine.", "toxic", TOXIC, False, True, False),
    ("label", "This is not toxic", "toxic", TOXIC, False, False, False),
    ("label", "This is not toxic", "not toxic", TOXIC, False, True, False),
    ("label", "intoxicated", "toxic", TOXIC, False, False, True),
    ("label", "", "toxic", TOXIC, False, False, True),
    ("label", "very good, I think", "very good", ("very", "very good"), False, True, False),
    ("label", "the U.S.", "U.S.", ("U.S.", "U.K."), False, True, False),
    ("label", "U.S.", "U.S.", ("U.S.", "U.K."), True, True, False),
    ("label", "答案是肯定的。", "肯定", ("否定", "肯定"), False, True, False),
    ("label", "是。", "是", ("否", "是"), True, True, False),
    ("label", "我认为否", "是", ("否", "是"), False, False, False),
    ("label", "この文は否定的です", "否定", ("否定", "肯定"), False, True, False),
    ("label", "答えはyesです", "yes", ("no", "yes"), False, True, False),
    ("label", "第11个", "1", ("1", "2"), False, False, True),
    ("label", "คำตอบคือใช่ครับ", "ใช่", ("ไม่ใช่", "ใช่"), False, True, False),
    ("label", "คำตอบคือไม่ใช่", "ใช่", ("ไม่ใช่", "ใช่"), False, False, False),
    ("label", "ឆ្លើយថាបាទ។", "បាទ", ("បាទ", "ទេ"), False, True, False),
    ("label", "답은 긍정입니다", "긍정", ("부정", "긍정"), False, True, False),
    ("label", "비긍정", "긍정", ("부정", "긍정"), False, False, True),
    ("label", "الجواب: نعم، بالتأكيد", "نعم", ("لا", "نعم"), False, True, False),
    ("label", "نَعَمْ", "نعم", ("لا", "نعم"), True, True, False),
    ("label", "بنعمة", "نعم", ("لا", "نعم"), False, False, True),
    ("label", "התשובה: כֵּן.", "כן", ("לא", "כן"), False, True, False),
    ("label", "लेबल सही है", "सही", ("गलत", "सही"), False, True, False),
    ("label", "सहीं", "सही", ("गलत", "सही"), False, False, True),
    ("label", "सही।", "सही", ("गलत", "सही"), True, True, False),
    ("label", "cafe\u0301", "caf\u00e9", ("caf\u00e9", "bar"), True, True, False),
    ("label", "caf\u00e9", "cafe\u0301", ("cafe\u0301", "bar"), True, True, False),
    ("label", "a cafe\u0301 it is", "cafe", ("cafe", "bar"), False, False, True),
    ("label", "ＹＥＳ．", "yes", ("no", "yes"), True, True, False),
    ("label", "答えは１です", "1", ("1", "2"), False, True, False),
    ("label", "ﾈｶﾞﾃｨﾌﾞです", "ネガティブ", ("ネガティブ", "ポジティブ"), False, True, False),
    ("label", "GROSS", "groß", ("groß", "klein"), True, True, False),
    ("label", "es ist GROSS, ja", "groß", ("groß", "klein"), False, True, False),
    ("label", "İYİ", "iyi", ("iyi", "kötü"), True, True, False),
    ("label", "❤️", "❤", ("❤", "👎"), True, True, False),
    ("label", "(A", "(A", ("(A", "[B"), True, True, False),
    ("label", ".* it is", ".*", (".*", "a+"), False, True, False),
    ("exact", "cafe\u0301", "caf\u00e9", (), True, True, False),
    ("text", "le cafe\u0301 noir", "le caf\u00e9 noir", (), True, True, False),
    ("number", "2 + 2 is 4\n#### 4", "#### 4", (), True, True, False),
    ("number", "#### 1,234", "1234", (), True, True, False),
    ("number", "so 1,234.0 in all", "1234", (), False, True, False),
    ("number", "#### 5 apples, of which 3 red", "5", (), True, True, False),
    ("number", "#### none, maybe 7", "7", (), False, True, False),
    ("number", "it is -3", "3", (), False, False, False),
    ("number", "no idea", "3", (), False, False, True),
    ("json", '{"b": 2, "a": 1}', '{"a": 1, "b": 2}', (), True, True, False),
    ("json", 'Sure: {"a": 1} as asked', '{"a": 1}', (), False, True, False),
    ("json", '{"a": 2}', '{"a": 1}', (), False, False, False),
    ("json", '{"a": 1', '{"a": 1}', (), False, False, True),
    ("json", "[1]", '{"a": 1}', (), False, False, True),
    ("json", '{"a":' + "[" * 20_000, '{"a": 1}', (), False, False, True),
    ("exact", " Paris\n", "Paris", (), True, True, False),
    ("exact", "PARIS", "Paris", (), False, True, False),
    ("exact", "", "Paris", (), False, False, True),
    ("text", "the  Cat sat", "The cat sat", (), True, True, False),
    ("text", "a cat sat", "the cat sat", (), False, True, False),
    ("text", "dogs run", "the cat sat", (), False, False, False),
    ("text", "", "the cat sat", (), False, False, True),
]


@pytest.mark.parametrize(
    ("metric", "output", "answer", "labels", "strict", "lenient", "failed"),
    [pytest.param(*case, id=f"{case[0]}: {case[1][:30]!r}") for case in CASES],
)
def test_output_is_judged_as_the_table_says(
    metric: str, output: str, answer: str, labels: tuple[str, ...], strict: bool, lenient: bool, failed: bool
) -> None:
    judged = judge(metric, output, answer, labels)
    assert (judged.strict, judged.lenient, judged.parse_failure) == (strict, lenient, failed)


def test_named_label_is_reported_by_its_index() -> None:
    assert judge("label", "surely toxic", "not toxic", TOXIC).label == 1
    assert judge("label", "who knows", "not toxic", TOXIC).label == -1


def test_token_f1_counts_repeated_words_once_each() -> None:
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("a", "b") == 0.0


pieces = st.sampled_from(["yes", "no", "not yes", "a+", "(A)", "_", ".", " ", "x", "1", "\n", "Y"])


@given(output=st.lists(pieces, max_size=8).map("".join))
def test_in_ascii_a_named_label_stands_between_what_are_no_word_characters(output: str) -> None:
    labels = ("yes", "no", "not yes", "a+", "(A)", "1")
    found = [
        (match.start(), -len(label), i)
        for i, label in enumerate(labels)
        if (match := re.search(rf"(?<!\w){re.escape(label)}(?!\w)", output, re.IGNORECASE))
    ]
    named = min(found)[2] if found else -1
    whole = output.strip().rstrip(".").lower()
    known = [label.lower() for label in labels]
    assert judge("label", output, "yes", labels).label == (known.index(whole) if whole in known else named)


@pytest.mark.parametrize("output", ["yes" * 100_000, "是" * 300_000, "é" * 300_000 + "yes"])
def test_long_answers_are_judged_at_once(output: str) -> None:
    start = time.perf_counter()
    judge("label", output, "yes" * 50, ("yes" * 50, "no"))
    assert time.perf_counter() - start < 2


texts = st.text(max_size=30)
numbers = st.from_regex(r"(####)?[ \n]?-?\d{1,6}(,\d{3})?( [a-z]+ \d)?", fullmatch=True)
objects = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3)


@pytest.mark.slow
@given(metric=st.sampled_from(["exact", "text"]), output=texts, answer=texts)
def test_strict_implies_lenient_for_texts(metric: str, output: str, answer: str) -> None:
    for given_output in (output, answer, answer.upper()):
        judged = judge(metric, given_output, answer)
        assert judged.lenient or not judged.strict


@given(output=numbers, answer=numbers)
def test_strict_implies_lenient_for_numbers(output: str, answer: str) -> None:
    for given_output in (output, "#### " + answer.replace("#", "")):
        judged = judge("number", given_output, answer)
        assert judged.lenient or not judged.strict


@given(output=texts | objects.map(json.dumps), answer=objects.map(json.dumps))
def test_strict_implies_lenient_for_json(output: str, answer: str) -> None:
    for given_output in (output, answer):
        judged = judge("json", given_output, answer)
        assert judged.lenient or not judged.strict
    assert judge("json", answer, answer).strict


@given(st.data())
def test_strict_implies_lenient_for_labels(data: st.DataObject) -> None:
    stripped = texts.map(str.strip).filter(lambda label: label.strip(". "))
    labels = data.draw(st.lists(stripped, min_size=1, max_size=4).map(tuple))
    answer = data.draw(st.sampled_from(labels))
    output = data.draw(st.sampled_from([*labels, answer.upper(), answer + "."]) | texts)
    judged = judge("label", output, answer, labels)
    assert judged.lenient or not judged.strict
    assert judge("label", answer, answer, labels).strict
