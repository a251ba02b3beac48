"""Requests out of logs: the forms in which gateways and servers write them, and what is broken or hostile."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitroute.adapters import SuiteError
from traitroute.profiling.tasks.request_log import Entry, read_log

USER = {"role": "user", "content": "What rhymes with orange?"}
BODY = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, USER]}
ANSWERED = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Nothing."}, "finish_reason": "stop"}]}
TOOL = {"type": "function", "function": {"name": "rhymes", "parameters": {"type": "object"}}}


def read(tmp_path: Path, *lines: Any) -> list[Entry]:
    file = tmp_path / "log.jsonl"
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    file.write_bytes(b"\n".join(data) + b"\n")
    return list(read_log(file))


@pytest.mark.parametrize(
    "entry",
    [
        BODY | {"response": ANSWERED},
        {
            "custom_id": "1",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": BODY,
            "response": {"body": ANSWERED},
        },
        {"call_type": "acompletion", "messages": BODY["messages"], "response": ANSWERED, "metadata": {"user": "x"}},
        {"request_id": "1", "messages": {}, "proxy_server_request": BODY, "response": ANSWERED},
        {
            "request_id": "1",
            "messages": "{}",
            "proxy_server_request": json.dumps({"url": "http://x", "method": "POST", "body": BODY}),
            "response": json.dumps(ANSWERED),
        },
        {"type": "GENERATION", "input": BODY["messages"], "output": {"role": "assistant", "content": "Nothing."}},
        {"type": "GENERATION", "input": {"messages": BODY["messages"]}, "output": "Nothing."},
        {"type": "GENERATION", "input": json.dumps(BODY["messages"]), "output": json.dumps({"content": "Nothing."})},
        {"messages": [*BODY["messages"], {"role": "assistant", "content": "Nothing."}]},
        {"request": BODY, "response": "Nothing."},
    ],
    ids=["openai", "batch", "litellm", "spend", "spend as text", "langfuse", "object", "as text", "dialogue", "pair"],
)
def test_a_request_and_its_answer_are_read_in_the_form_of(tmp_path: Path, entry: Any) -> None:
    (read_entry,) = read(tmp_path, entry)
    assert read_entry.chat is not None, read_entry
    assert list(read_entry.chat.messages) == BODY["messages"]
    assert read_entry.chat.answer == "Nothing."


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ('{"city": "Rome"}', '{"city": "Rome"}'),
        ({"city": "Rome"}, '{"city": "Rome"}'),
        ({"choices": [{"message": {"content": '["Rome"]'}}]}, '["Rome"]'),
        ({"choices": []}, ""),
        ({"error": {"message": "away"}}, ""),
        ({"content": [{"type": "image_url"}]}, ""),
        (None, ""),
    ],
)
def test_an_answer_may_be_json_itself(tmp_path: Path, response: Any, answer: str) -> None:
    (entry,) = read(tmp_path, BODY | {"response": response})
    assert entry.chat is not None and entry.chat.answer == answer


def test_tools_and_a_wish_for_json_are_read_beside_the_messages_or_among_parameters(tmp_path: Path) -> None:
    wished = {"tools": [TOOL], "response_format": {"type": "json_schema", "json_schema": {}}}
    for entry in read(tmp_path, BODY | wished, {"messages": BODY["messages"], "model_parameters": wished}):
        assert entry.chat is not None and entry.chat.tools == (TOOL,)
        assert entry.asks_json


def test_vllms_own_log_is_read_by_its_lines_of_bodies(tmp_path: Path) -> None:
    body = json.dumps(BODY).encode()
    before = b"(APIServer pid=9) DEBUG 12-01 10:00:00 [request_logger.py:68] Request chatcmpl-1 JSON body: "
    entries = read(tmp_path, b"INFO 12-01 10:00:00 Started server process [9]", before + body, before + body[:40])
    assert [(entry.chat is not None, bool(entry.fault)) for entry in entries] == [
        (False, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": [', "not JSON"),
        (b"hello", "not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "half a character"),
        (b'{"messages": "[{\\"role\\": \\"user\\", \\"content\\": \\"\\\\ud83d\\"}]"}', "half a character"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "not UTF-8"),
        (b'{"messages": [{"role": "user", "content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", "nested too deeply"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', 'with a "role"'),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}', "image_url"),
        (b'{"messages": [{"role": "system", "content": "x"}]}', "nothing is asked"),
        (b'{"messages": [{"role": "user", "content": {"a": ' + b'{"a": ' * 400 + b"1" + b"}" * 402 + b"]}", "content"),
        (b'{"messages": [{"role": "user", "content": "' + b"x" * (16 * 2**20) + b'"}]}', "longer than 16 MiB"),
    ],
    ids=["cut", "text", "half", "half inside", "bytes", "deep", "role", "image", "system", "odd", "long"],
)
def test_a_line_that_cannot_be_read_is_told_with_its_number_and_the_rest_is_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    before, broken, after = read(tmp_path, BODY, line, BODY)
    assert before.chat is not None and after.chat is not None
    assert (broken.number, after.number) == (2, 3)
    assert reason in broken.fault


@pytest.mark.parametrize(
    "other",
    [
        {"level": "info", "event": "started"},
        {"type": "SPAN", "input": BODY["messages"]},
        {"call_type": "aembedding", "model": "e", "input": "What rhymes with orange?"},
        [1, 2],
        None,
        {"body": {"body": {"body": {"body": BODY}}}},
    ],
)
def test_other_json_is_passed_over(tmp_path: Path, other: Any) -> None:
    passed, request = read(tmp_path, other, BODY)
    assert passed == Entry(1)
    assert request.chat is not None


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_piece_by_piece(tmp_path: Path, indent: int | None) -> None:
    file = tmp_path / "export.json"
    many = [{**BODY, "note": f"é{i}" * 2_000} for i in range(400)]
    for whole in (many, {"data": many, "meta": {"page": 1}}):
        file.write_text("\ufeff" + json.dumps(whole, indent=indent, ensure_ascii=False), encoding="utf-8")
        entries = list(read_log(file))
        assert [entry.number for entry in entries] == list(range(1, 401))
        assert all(entry.chat for entry in entries)


def test_an_array_that_was_cut_short_gives_what_stands_before_the_cut(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_text(json.dumps([BODY] * 5)[:-30])
    entries = list(read_log(file))
    assert [entry.chat is not None for entry in entries] == [True] * 4 + [False]
    assert "not JSON" in entries[-1].fault


def table(tmp_path: Path, *rows: dict[str, str]) -> Path:
    file = tmp_path / "export.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_a_table_is_read_as_the_objects_it_was_made_of(tmp_path: Path) -> None:
    long = [*BODY["messages"], {"role": "user", "content": "é" * 200_000}]
    langfuse = {
        "id": "1",
        "type": "GENERATION",
        "input": json.dumps(BODY["messages"], indent=1),
        "output": '"Nothing."',
    }
    rows = [langfuse, {**langfuse, "input": "What rhymes\nwith orange?"}, {**langfuse, "input": json.dumps(long)}]
    file = table(tmp_path, *rows, {**langfuse, "type": "SPAN"})
    first, plain, whole, span = read_log(file)
    assert first.chat is not None and list(first.chat.messages) == BODY["messages"]
    assert plain.chat is not None and plain.chat.messages[0]["content"] == "What rhymes\nwith orange?"
    assert whole.chat is not None and len(whole.chat.messages[-1]["content"]) == 200_000
    assert span.chat is None and not span.fault
    assert csv.field_size_limit() == 131_072
    assert [entry.number for entry in read_log(file, only={plain.number})] == [plain.number]
    own = table(tmp_path, {"prompt": "Name a city.", "response": "Rome"})
    assert [(e.chat and e.chat.asked, e.chat and e.chat.answer) for e in read_log(own)] == [("Name a city.", "Rome")]


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (b"prompt,response\na,b\nc\nd,e\n", ["", "more or fewer cells than the first line", ""]),
        (b'prompt,response\na,b\n"c,d\n', ["", "no CSV (unexpected end of data): what follows"]),
        (b"prompt,response\na,b\n\xff,d\n", ["", "no CSV (not UTF-8 text"]),
        (b"", []),
    ],
)
def test_a_broken_table_is_read_up_to_the_break(tmp_path: Path, content: bytes, faults: list[str]) -> None:
    file = tmp_path / "export.csv"
    file.write_bytes(content)
    entries = list(read_log(file))
    assert [bool(entry.chat) for entry in entries] == [not fault for fault in faults]
    assert all(fault in entry.fault for fault, entry in zip(faults, entries, strict=True))


def test_what_is_read_is_told_as_it_is_read(tmp_path: Path) -> None:
    parts: list[int] = []
    read(tmp_path, *[BODY | {"note": "x" * 100_000}] * 50)
    for _ in read_log(tmp_path / "log.jsonl", on_bytes=parts.append):
        assert 0 < len(parts) < 9
    assert sum(parts) == (tmp_path / "log.jsonl").stat().st_size


def test_chosen_lines_alone_are_read_again(tmp_path: Path) -> None:
    read(tmp_path, *[BODY] * 9)
    assert [entry.number for entry in read_log(tmp_path / "log.jsonl", only={2, 7})] == [2, 7]


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be read: No such file"):
        list(read_log(tmp_path / "none.jsonl"))


WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "tool",
        "GENERATION",
        "json_object",
        "",
        "hi",
        '{"messages": []}',
        "[1",
        '["',
        "\x00",
        "\ud83d",
    ]
)
KEYS = st.sampled_from(
    [
        *(
            "messages",
            "role",
            "content",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "tools",
            "prompt",
            "text",
            "type",
        ),
        *("response", "choices", "message", "output", "input", "body", "proxy_server_request", "model_parameters"),
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=30,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_no_json_of_these_keys_ends_the_reading(tmp_path: Path, values: list[Any]) -> None:
    assert [entry.number for entry in read(tmp_path, BODY, *values)] == list(range(1, len(values) + 2))
    for entry in read(tmp_path, BODY, {"messages": [USER, *values], "tools": values, "response": values[0]}):
        assert entry.chat is None or json.dumps([entry.chat.messages, entry.chat.tools, entry.chat.answer]).encode()
