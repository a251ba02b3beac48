"""The text of a request body that decides its route."""

import time
from typing import Any

import pytest
from traitroute.adapters import InputError
from traitroute.router import request_text


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [user("hi")]}, "hi"),
        ({"messages": [{"role": "system", "content": "be kind"}, user("hi")]}, "hi"),
        ({"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]}, "a\nb"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])]}, ""),
        ({"messages": [user("")]}, ""),
        ({"prompt": "once"}, "once"),
        ({"prompt": ["once", "twice"]}, "once"),
        ({"messages": [user("hi")], "prompt": "once"}, "hi"),
        ({"messages": [user(["a", {"type": "text", "text": "b"}])]}, "a\nb"),
        ({"messages": [user("👋"), {"role": "assistant", "content": "hm"}, user("hi")]}, "hi"),
        ({"messages": [user(None), user("hi")]}, "hi"),
        ({"prompt": ["?", "once"]}, "once"),
        ({"messages": [{"role": "system", "content": "x"}]}, ""),
        ({"messages": [{"role": "user"}]}, ""),
        ({"messages": [{"type": "function_call_output", "output": "x"}]}, ""),
        ({"prompt": [1, 2]}, ""),
        ({"prompt": [[1], [2]]}, ""),
    ],
)
def test_text_is_found(body: dict[str, Any], text: str) -> None:
    assert request_text(body) == text


def test_text_stays_the_same_as_a_conversation_grows() -> None:
    turns = [{"role": "system", "content": "be kind"}, user("first")]
    later = [*turns, {"role": "assistant", "content": "done"}, user("second")]
    assert request_text({"messages": later}) == request_text({"messages": turns}) == "first"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, 'needs "messages"'),
        ({"prompt": [1.5]}, "text or token ids"),
        ({"prompt": []}, "no text to route"),
        ({"prompt": None}, "no text to route"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "must be a list"),
        ({"messages": ["hi", None]}, """must be an object with a "role", and not 'hi'"""),
        ({"messages": [{"content": "hi"}]}, "must be an object"),
        ({"messages": [user(3)]}, "must be text or a list of parts"),
        ({"messages": [user([3])]}, "must be text or a list of parts"),
    ],
)
def test_a_malformed_body_is_refused(body: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        request_text(body)


def test_the_last_text_can_be_asked_for() -> None:
    turns = [user("first"), user("second"), user([{"type": "tool_result", "content": "x"}])]
    assert request_text({"messages": turns}, last=True) == "second"
    assert request_text({"prompt": ["once", "twice"]}, last=True) == "once"


SILENT = [
    *(
        "",
        " ",
        "\n\t",
        ".",
        "?",
        "…",
        "!!!",
        "---",
        "👋",
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "1️⃣",
        "42",
        "-5",
        "3.14",
        "1,000",
        "1 2 3",
        "50%",
    ),
    *("١٢٣", "\u200b", "\u200d\ufeff", "\u3164", "{}", "$5", "10:30", "+", "= 4", "(((", "1" + "(" * 9000),
    *("." * 10**6, " " * 10**6),
]
SAYING = [
    *("a", "é", "ß", "да", "नमस्ते", "你好", "안녕", "مرحبا", "ไทย", "a1", "x?", "ツ", "三"),
    *(
        "27017036 - 7672121814439 =",
        "3+4",
        "12*7=?",
        "12 × 7",
        "7 ÷ 2",
        "(3) + (4)",
        "5 > 3",
        "2^10",
        "3 - -4",
        "1.5/2.5",
    ),
]


@pytest.mark.parametrize("text", SILENT)
def test_what_holds_neither_a_letter_nor_a_sum_says_nothing(text: str) -> None:
    assert request_text({"prompt": text}) == ""


@pytest.mark.parametrize("text", SAYING)
def test_a_letter_of_any_script_or_a_sum_says_something(text: str) -> None:
    assert request_text({"prompt": text}) == text


@pytest.mark.parametrize("text", ["1+" + "+" * 4000, "1 " + " " * 4000, "1(" * 2000, "1+-" * 2000])
def test_looking_for_a_sum_takes_no_time(text: str) -> None:
    start = time.perf_counter()
    for _ in range(20):
        request_text({"prompt": text})
    assert time.perf_counter() - start < 1
