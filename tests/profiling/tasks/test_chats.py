"""Rows that are conversations, and shots shown before a row: what is sent, what is learned, and what routes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import SuiteError
from traitroute.profiling.tasks.chat import MOST_MESSAGES, read_chat
from traitroute.profiling.tasks.sources import FolderSource
from traitroute.profiling.tasks.task import Task

SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    SYSTEM,
    {"role": "user", "content": "Name a tree."},
    {"role": "assistant", "content": "Oak."},
    {"role": "user", "content": "And one with needles?"},
]
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


def task_of(folder: Path, train: list[Any], test: list[Any], **settings: Any) -> Task:
    (folder / "trees").mkdir()
    for split, rows in (("train", train), ("test", test)):
        (folder / "trees" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Task(name="trees", rows=FolderSource(folder=folder), **settings)


def test_a_conversation_is_sent_whole_and_its_last_answer_is_the_target(tmp_path: Path) -> None:
    (example,) = task_of(tmp_path, [], [{"messages": [*TALK, {"role": "assistant", "content": "Pine."}]}]).test_examples
    assert list(example.messages) == TALK
    assert (example.prompt, example.target, example.answer) == ("And one with needles?", "Pine.", "Pine.")
    assert example.routed == "Name a tree."


def test_the_prompt_template_makes_the_last_user_turn(tmp_path: Path) -> None:
    task = task_of(tmp_path, [], [{"messages": TALK, "target": "Pine."}], prompt="{{ input }}\nOne word.")
    assert task.test_examples[0].messages[-1]["content"] == "And one with needles?\nOne word."


def test_tools_go_with_the_row_and_a_call_is_an_answer_in_json(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"kind": "pine"}'}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = {"role": "tool", "tool_call_id": "1", "content": "3 pines"}
    rows = [
        {"messages": [*TALK, called], "tools": [TOOL]},
        {"messages": json.dumps([*TALK, called, found]), "tools": json.dumps([TOOL]), "target": "Three."},
    ]
    first, second = task_of(tmp_path, [], rows, metric="text").test_examples
    assert json.loads(first.answer) == {"name": "find", "arguments": {"kind": "pine"}}
    assert first.tools == second.tools == (TOOL,)
    assert second.messages[-2]["tool_calls"][0]["function"]["arguments"] == {"kind": "pine"}
    assert second.messages[-1]["role"] == "tool"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "holds 0 messages"),
        ({"messages": "hello"}, '"messages" is a list'),
        ({"messages": [SYSTEM] * (MOST_MESSAGES + 1)}, "holds 1001 messages"),
        ({"messages": [SYSTEM]}, "nothing is asked"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"messages": TALK, "tools": [{"name": "find"}]}, 'an object with a "function"'),
        ({"messages": [*TALK, {"role": "assistant", "tool_calls": [{}]}]}, 'a "function" with a "name"'),
    ],
)
def test_what_is_no_conversation_of_texts_is_refused_by_line(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(SuiteError, match=r"test\.jsonl, line 1") as error:
        _ = task_of(tmp_path, [], [row]).test_examples
    assert reason in str(error.value)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(SuiteError, match="no JSON"):
        read_chat(TALK, [TOOL | {"function": {"name": object()}}], "row 1")


def test_columns_beside_an_input_stay_columns(tmp_path: Path) -> None:
    row = {"input": "1 + 1", "target": "2", "messages": "three of them", "tools": "a saw"}
    (example,) = task_of(tmp_path, [], [row]).test_examples
    assert example.model_dump() == {"prompt": "1 + 1", "target": "2", "answer": "2"}


def rows(*numbers: int) -> list[dict[str, str]]:
    return [{"input": f"{n} + 1", "target": str(n + 1)} for n in numbers]


def test_shots_are_earlier_turns_of_training_rows_and_never_of_a_test_row(tmp_path: Path) -> None:
    task = task_of(tmp_path, rows(*range(8)), rows(0, 1, 2, 3, 50), shots=4)
    first, last = task.test_examples[0], task.test_examples[-1]
    assert [message["role"] for message in last.messages] == ["user", "assistant"] * 4 + ["user"]
    assert {asked for asked, _ in last.shots} == {f"{n} + 1" for n in (4, 5, 6, 7)}
    assert first.shots == last.shots
    assert last.routed == last.prompt == "50 + 1"
    assert not task.training_examples[0].shots


def test_shots_are_drawn_by_the_seed_and_are_part_of_the_digest(tmp_path: Path) -> None:
    task = task_of(tmp_path, rows(*range(60)), rows(70, 71), shots=3)
    alike, other, bare = (Task.model_validate(dict(task) | more) for more in ({}, {"seed": 5}, {"shots": 0}))
    assert task.test_examples[0].shots == alike.test_examples[0].shots != other.test_examples[0].shots
    assert task.digest == alike.digest != bare.digest


def test_a_system_prompt_stands_before_the_shots(tmp_path: Path) -> None:
    task = task_of(tmp_path, rows(1, 2), [{"messages": TALK, "target": "Pine."}], shots=1, metric="text")
    sent = task.test_examples[0].messages
    assert sent[0] == SYSTEM
    assert [message["content"] for message in sent[3:]] == [message["content"] for message in TALK[1:]]


def test_more_shots_than_there_are_rows_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r'2 shots are wanted, and 1 of the training rows .* set a smaller "shots"'):
        _ = task_of(tmp_path, rows(1, 2), rows(1, 5), shots=2).test_examples
