"""pydantic-ai by base URL: an agent whose model is `auto`, and what its results tell of the choice.

    pip install 'pydantic-ai-slim[openai]'
    traitroute serve --port 8000
    python examples/pydantic_ai_client.py

OPENAI_BASE_URL and OPENAI_API_KEY name the server and its key, where it wants one.
"""

import asyncio
import os
import sys

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

REQUESTS = (
    "Rate the remark as positive, neutral or negative.\nThe soup was cold and the waiter rude.",
    "What is the capital of France?",
)


async def show_gain(response: httpx2.Response) -> None:
    """Print what pydantic-ai does not pass on: the predicted gain over the base model."""
    print(f"predicted gain: {response.headers['x-traitroute-gain']}")


async def main() -> None:
    """Run the agent on each request."""
    client = AsyncOpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        http_client=DefaultAsyncHttpxClient(event_hooks={"response": [show_gain]}),
    )
    model = OpenAIChatModel("auto", provider=OpenAICompatibleProvider("traitroute", openai_client=client))
    agent = Agent(model, model_settings=OpenAIChatModelSettings(temperature=0, max_tokens=32))
    for request in sys.argv[1:] or REQUESTS:
        print(f"request: {request!r}")
        result = await agent.run(request)
        # The name of an adapter, or of the base model.
        print(f"skill: {result.response.model_name}")
        print(f"answer: {result.output}\n")


if __name__ == "__main__":
    asyncio.run(main())
