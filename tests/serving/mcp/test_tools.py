"""What an agent is told over MCP, whatever the transport."""

from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import validate
from mcp import Client

Talk = Callable[..., Any]
TextOf = Callable[[str], str]


def called(talk: Talk, tool: str, **arguments: Any) -> Any:
    async def conversation(client: Client) -> Any:
        return await client.call_tool(tool, arguments)

    return talk(conversation)


def refused(talk: Talk, tool: str, **arguments: Any) -> str:
    """The error that a tool answers with."""
    result = called(talk, tool, **arguments)
    assert result.is_error
    assert result.structured_content is None
    return result.content[0].text


def test_a_selection_names_the_skill_and_puts_base_in_its_place(talk: Talk, text_of: TextOf) -> None:
    told = called(talk, "select_skill", task=text_of("space")).structured_content
    assert told["choice"] == "pilot"
    assert [skill["name"] for skill in told["ranking"]].index("base") > 0
    assert [gain["task"] for gain in told["ranking"][0]["side_effects"]] == ["cooking"]


def test_a_plan_changes_skill_less_often_within_the_loss(talk: Talk, text_of: TextOf) -> None:
    steps = [{"task": text_of(task)} for task in ("cooking", "space", "cooking")]
    free = called(talk, "plan_skills", steps=steps).structured_content
    assert [step["assigned"] for step in free["steps"]] == ["chef", "pilot", "chef"]
    bound = called(talk, "plan_skills", steps=steps, max_loss=3).structured_content
    assert bound["switches"] < free["switches"]
    assert bound["loss"] <= 3


def test_skills_are_listed_and_described(talk: Talk) -> None:
    listed = called(talk, "list_skills").structured_content["skills"]
    assert [skill["name"] for skill in listed] == ["chef", "idle", "pilot"]
    card = called(talk, "describe_skill", name="chef").structured_content
    assert card["licence"] == "apache-2.0"
    assert [gain["task"] for gain in card["side_effects"]] == ["law", "space"]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("select_skill", {"task": "simmer the soup"}),
        ("plan_skills", {"steps": [{"task": "simmer the soup"}]}),
        ("list_skills", {}),
        ("describe_skill", {"name": "chef"}),
    ],
)
def test_arguments_and_answers_keep_to_the_schemas(talk: Talk, tool: str, arguments: dict[str, Any]) -> None:
    async def conversation(client: Client) -> Any:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        return tools[tool], await client.call_tool(tool, arguments)

    described, result = talk(conversation)
    validate(arguments, described.input_schema)
    validate(result.structured_content, described.output_schema)
    assert described.annotations.read_only_hint


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("select_skill", {}, 'give either "task"'),
        ("select_skill", {"task": "a" * 2**20}, "shorten it"),
        ("select_skill", {"task": "a", "k": 0}, "k was 0"),
        (
            "select_skill",
            {"task": "a", "constraints": {"alow": []}},
            "constraints.alow is not known",
        ),
        (
            "select_skill",
            {"task": "a", "constraints": {"allow": ["chief"]}},
            "did you mean 'chef'?",
        ),
        ("plan_skills", {"steps": []}, "steps was []"),
        ("plan_skills", {"steps": [{"task": "a"}, {"task": "a" * 2**20}]}, "steps.1.task has"),
        ("list_skills", {"tag": "a"}, "tag is not known"),
        ("describe_skill", {"name": "chief"}, "there is no skill 'chief'"),
    ],
)
def test_what_is_wrong_is_told_so_that_the_agent_can_mend_it(
    talk: Talk, tool: str, arguments: dict[str, Any], told: str
) -> None:
    assert told in refused(talk, tool, **arguments)


@pytest.mark.parametrize("task", ["", " ", ".", "👋"])
def test_for_a_task_without_words_base_is_selected(talk: Talk, task: str) -> None:
    selection = called(talk, "select_skill", task=task).structured_content
    assert selection["choice"] == "base"
    assert selection["reason"].startswith("no-text: ")
