"""Skill cards and the map of traits, read as resources; the prompt."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from traitroute.serving.mcp.server import PAGE, resource_page

Talk = Callable[..., Any]


def read(talk: Talk, uri: str) -> Any:
    async def conversation(client: Client) -> Any:
        return (await client.read_resource(uri)).contents[0]

    return talk(conversation)


def test_every_skill_has_a_card_in_markdown(talk: Talk) -> None:
    async def conversation(client: Client) -> Any:
        return (await client.list_resources()).resources

    assert [r.uri for r in talk(conversation)] == [
        "traits://map",
        "skill://chef",
        "skill://idle",
        "skill://pilot",
    ]
    card = read(talk, "skill://chef")
    assert card.mime_type == "text/markdown"
    assert "| cooking | 0.20 | 0.90 | +0.70 |" in card.text
    assert "on law (-0.25), space (-0.15) it surely loses" in card.text


def test_the_map_of_traits_places_every_skill(talk: Talk) -> None:
    told = json.loads(read(talk, "traits://map").text)
    assert [skill["name"] for skill in told["skills"]] == ["chef", "pilot", "idle"]
    assert told["traits"][0]["label"] == "kitchen work"


@pytest.mark.parametrize("uri", ["skill://chief", "skill://../registry.db", "file:///etc/passwd"])
def test_what_is_not_there_is_an_error(talk: Talk, uri: str) -> None:
    async def conversation(client: Client) -> None:
        with pytest.raises(MCPError, match="there is no"):
            await client.read_resource(uri)

    talk(conversation)


def test_a_fleets_cards_are_listed_by_pages() -> None:
    names = [f"skill-{i:05}" for i in range(2 * PAGE + 50)]
    listed, cursor = [], None
    while True:
        page = resource_page(names, cursor)
        listed += [r.name for r in page.resources]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert listed == ["traits", *names]


def test_the_prompt_holds_the_goal_and_names_the_tool(talk: Talk) -> None:
    async def conversation(client: Client) -> Any:
        found = await client.get_prompt("work_by_skills", {"goal": "answer {all} mail"})
        return found.messages[0].content

    text = talk(conversation).text
    assert "answer {all} mail" in text
    assert "plan_skills" in text
