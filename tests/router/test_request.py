"""The text of a request body that decides its route."""

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
        (
            {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]},
            "a\nb",
        ),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])]}, ""),
        ({"messages": [user("")]}, ""),
        ({"prompt": "once"}, "once"),
        ({"prompt": ["once", "twice"]}, "once"),
        ({"messages": [user("hi")], "prompt": "once"}, "hi"),
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
        ({"prompt": [1, 2]}, "token ids cannot be routed"),
        ({"prompt": []}, "no text to route"),
        ({"prompt": None}, "no text to route"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "must be a list"),
        ({"messages": [{"role": "system", "content": "x"}]}, 'no message with "role": "user"'),
        ({"messages": ["hi", None]}, 'no message with "role": "user"'),
        ({"messages": [user(None)]}, "must be text or a list of parts"),
        ({"messages": [{"role": "user"}]}, "must be text or a list of parts"),
    ],
)
def test_body_without_text_is_refused(body: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        request_text(body)
