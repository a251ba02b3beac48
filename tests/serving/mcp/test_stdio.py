"""`traitroute mcp` as an agent starts it."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

TRAITROUTE = str(Path(sys.executable).with_name("traitroute"))


async def conversation(registry: Path) -> Any:
    server = StdioServerParameters(command=TRAITROUTE, args=["mcp", "--registry", str(registry)])
    async with Client(server) as client:
        told = await client.call_tool("select_skill", {"task": "simmer onion soup with butter"})
        card = await client.read_resource("skill://chef")
        return told.structured_content, card.contents[0]


@pytest.mark.slow
def test_an_agent_that_starts_it_is_answered(filled: Path) -> None:
    told, card = asyncio.run(conversation(filled))
    assert told["choice"] == "chef"
    assert told["ranking"][0]["loaded"] is None
    assert card.text.startswith("# chef")


@pytest.mark.slow
def test_nothing_but_the_protocol_is_written_to_standard_output(filled: Path) -> None:
    command = [TRAITROUTE, "mcp", "--registry", str(filled)]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_a_registry_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    command = [TRAITROUTE, "mcp", "--registry", str(tmp_path / "none.db")]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
