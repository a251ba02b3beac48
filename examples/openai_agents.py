"""The OpenAI Agents SDK by base URL: one agent, and behind it the skill that each request needs.

    pip install openai-agents
    traitroute serve --port 8000
    python examples/openai_agents.py

OPENAI_BASE_URL and OPENAI_API_KEY name the server and its key, where it wants one.
"""

import asyncio
import os
import sys

import httpx2
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

REQUESTS = (
    "Rate the remark as positive, neutral or negative.\nThe soup was cold and the waiter rude.",
    "What is the capital of France?",
)


async def show_decision(response: httpx2.Response) -> None:
    """Print what the SDK does not pass on: the headers in which the server says what it chose."""
    told = response.headers
    print(f"skill: {told['x-traitroute-adapter']}, predicted gain {told['x-traitroute-gain']}")


async def main() -> None:
    """Run the agent on each request."""
    # Traces would go to OpenAI, and hold the requests.
    set_tracing_disabled(True)
    client = AsyncOpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        http_client=DefaultAsyncHttpxClient(event_hooks={"response": [show_decision]}),
    )
    agent = Agent(
        name="Clerk",
        model=OpenAIChatCompletionsModel(model="auto", openai_client=client),
        model_settings=ModelSettings(temperature=0, max_tokens=32),
    )
    for request in sys.argv[1:] or REQUESTS:
        print(f"request: {request!r}")
        result = await Runner.run(agent, request)
        print(f"answer: {result.final_output}\n")


if __name__ == "__main__":
    asyncio.run(main())
