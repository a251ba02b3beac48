"""Ask about skills over MCP with the SDK's own client: what an agent sees of TraitRoute.

    pip install mcp
    traitroute serve --port 8000
    python examples/mcp_client.py

or, without a server, `python examples/mcp_client.py --stdio traitroute mcp --registry traitroute.db`.

OPENAI_BASE_URL and OPENAI_API_KEY name the server and its key, where it wants one; MCP is at /mcp beside /v1.
"""

import asyncio
import os
import sys
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

PATIENCE = httpx2.Timeout(30, read=300)  # the SDK's own; httpx2 alone gives up after 5 s, too soon for a busy server
STEPS = (
    "Rate the remark as positive, neutral or negative.\nThe soup was cold and the waiter rude.",
    "What is the capital of France?",
    "Rate the remark as positive, neutral or negative.\nWe will certainly come back.",
)


async def converse(client: Client) -> None:
    """Ask what there is, which skill a sub-task and a plan need, and for that skill's card."""
    name = client.server_info.name if client.server_info else "of no name"
    print(f"server: {name}, protocol {client.protocol_version}")
    for tool in (await client.list_tools()).tools:
        print(f"tool: {tool.name}: {(tool.description or '').partition('.')[0]}.")

    chosen = await ask(client, "select_skill", task=STEPS[0], k=3)
    print(f"  {chosen['reason']}")
    for skill in chosen["ranking"]:
        print(f"  {skill['name']}: {skill['gain']:+.2f} [{skill['low']:+.2f}, {skill['high']:+.2f}]")

    steps = [{"task": step} for step in STEPS]
    show_plan(await ask(client, "plan_skills", steps=steps))
    show_plan(await ask(client, "plan_skills", steps=steps, max_loss=0.7))

    await ask(client, "describe_skill", name="no-such-skill")
    uri = f"skill://{chosen['choice']}"
    print(f"> read {uri}")
    card = (await client.read_resource(uri)).contents[0]
    print("\n".join(f"  {line}" for line in getattr(card, "text", "").splitlines()[:12]))


def show_plan(plan: dict[str, Any]) -> None:
    """Print which skill each step is assigned, and what that costs."""
    skills = " -> ".join(step["assigned"] for step in plan["steps"])
    print(f"  {skills}; changes of skill: {plan['switches']}, loss: {plan['loss']:.2f}")


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool, and say so; an error is printed as the agent would read it."""
    shown = ", ".join(f"{name}={value!r:.60}" for name, value in arguments.items())
    print(f"> {tool}({shown})")
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        print(f"  error: {getattr(result.content[0], 'text', '')}")
    return result.structured_content or {}


async def main() -> None:
    """Talk to the server, or to one that this starts."""
    if sys.argv[1:2] == ["--stdio"]:
        async with Client(StdioServerParameters(command=sys.argv[2], args=sys.argv[3:])) as client:
            await converse(client)
        return
    base = os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1")
    key = os.environ.get("OPENAI_API_KEY", "none")
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE) as http,
        Client(streamable_http_client(base.removesuffix("/v1") + "/mcp", http_client=http)) as client,
    ):
        await converse(client)


if __name__ == "__main__":
    asyncio.run(main())
