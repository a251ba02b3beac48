"""An agent's loop: plan with `plan_skills` over MCP, run each step on its skill, tell how it went.

    pip install mcp openai
    traitroute serve --port 8000
    python examples/plan_agent.py

OPENAI_BASE_URL and OPENAI_API_KEY name the server and its key, where it wants one; MCP is at /mcp beside /v1.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai import AsyncOpenAI

BASE = os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1")
KEY = os.environ.get("OPENAI_API_KEY", "none")
PATIENCE = httpx2.Timeout(30, read=300)  # the SDK's own; httpx2 alone gives up after 5 s, too soon for a busy server
MAX_LOSS = 0.2
"""So much predicted gain, summed over all steps, may be given up to change skills less often."""


@dataclass(frozen=True)
class Step:
    """A step of the agent's plan, and the answers that it can use."""

    request: str
    usable: tuple[str, ...]

    def reward(self, answer: str) -> float:
        """1 for an answer that the next step can work with, else 0."""
        return float(answer.strip(" .\n").lower() in self.usable)


PLAN = (
    Step(
        "Do the two sentences mean the same? Answer yes or no.\n"
        "Sentence 1: The boat left at noon. Sentence 2: The boat departed at noon.",
        ("yes", "no"),
    ),
    Step(
        "Does the premise entail the hypothesis? Answer entailment, neutral or contradiction.\n"
        "Premise: The boat left at noon. Hypothesis: The boat is still in the harbour.",
        ("entailment", "neutral", "contradiction"),
    ),
    Step(
        "Rate the remark as positive, neutral or negative.\nThe soup was cold and the waiter rude.",
        ("positive", "neutral", "negative"),
    ),
    Step("What is the capital of France?", ("the capital of france is paris",)),
)


async def assigned_skills(steps: tuple[Step, ...]) -> dict[str, Any]:
    """The plan: a skill for each step, with a token by which to tell how it went."""
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=PATIENCE) as http,
        Client(streamable_http_client(BASE.removesuffix("/v1") + "/mcp", http_client=http)) as mcp,
    ):
        asked = {"steps": [{"task": step.request} for step in steps], "max_loss": MAX_LOSS}
        result = await mcp.call_tool("plan_skills", asked)
        if result.is_error or result.structured_content is None:
            raise RuntimeError(f"no plan: {getattr(result.content[0], 'text', '')}")
        return result.structured_content


async def main() -> None:
    """Plan, run, and feed back."""
    plan = await assigned_skills(PLAN)
    print(
        f"plan: {plan['switches']} changes of skill, {plan['unplanned_switches']} without planning; "
        f"loss {plan['loss']:.2f} of at most {plan['max_loss']:.2f}"
    )
    client = AsyncOpenAI(base_url=BASE, api_key=KEY)
    for step, planned in zip(PLAN, plan["steps"], strict=True):
        reply = await client.chat.completions.create(
            model=planned["assigned"],
            messages=[{"role": "user", "content": step.request}],
            max_tokens=24,
            temperature=0,
        )
        answer = reply.choices[0].message.content or ""
        told = {"decision": planned["decision"], "reward": step.reward(answer)}
        kept = await client.post("/feedback", body=told, cast_to=dict[str, Any])
        print(f"step: {step.request!r}")
        print(f"skill: {planned['assigned']}, predicted gain {planned['gain']:+.3f}")
        print(f"answer: {answer} (reward {kept['reward']:g} for {kept['skill']})\n")


if __name__ == "__main__":
    asyncio.run(main())
