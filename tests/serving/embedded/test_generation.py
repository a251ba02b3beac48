"""Chunks of text are final, whole characters, and none of them begins a stop string that follows."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.serving.embedded.generation import TextStream

WORDS = ["a", "b", " c", "ab", "é", "\n"]


def decode_bytes(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


def streamed(stream: TextStream, tokens: list[int]) -> list[str]:
    chunks = []
    for token in tokens:
        chunks.append(stream.push(token))
        if stream.stopped:
            return chunks
    return [*chunks, stream.finish()]


@given(st.text())
def test_bytes_of_a_character_come_together(text: str) -> None:
    tokens = list(text.encode())
    chunks = streamed(TextStream(decode_bytes), tokens)
    assert "".join(chunks) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in chunk for chunk in chunks)


@given(
    st.lists(st.integers(0, len(WORDS) - 1), max_size=12),
    st.lists(st.sampled_from(["ab", "aab", " c", "b\n", "é"]), max_size=3),
)
def test_the_answer_ends_before_the_first_stop(tokens: list[int], stops: list[str]) -> None:
    text = "".join(WORDS[token] for token in tokens)
    stream = TextStream(lambda ids: "".join(WORDS[i] for i in ids), stops)
    chunks = streamed(stream, tokens)
    cuts = [text.find(stop) for stop in stops if stop in text]
    assert stream.stopped == bool(cuts)
    if not cuts:
        assert "".join(chunks) == text
        return
    # Stops that end at the same token are told apart by where they begin.
    said = "".join(chunks)
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    assert any(text[len(said) :].startswith(stop) for stop in stops)


@pytest.mark.parametrize(("text", "last"), [("x<", "<"), ("x</", "</"), ("x</s", "</s"), ("xs", "")])
def test_what_may_begin_a_stop_is_held_until_the_end(text: str, last: str) -> None:
    stream = TextStream(decode_bytes, ["</stop>"])
    *chunks, end = streamed(stream, list(text.encode()))
    assert ("".join(chunks), end) == (text.removesuffix(last), last)


def test_an_unfinished_character_is_shown_at_the_end() -> None:
    assert streamed(TextStream(decode_bytes), [0x61, 0xC3])[-1] == "\ufffd"
