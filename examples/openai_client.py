"""Let the server choose the adapter: `model="auto"` through the plain openai client.

    traitroute serve --port 8000
    python examples/openai_client.py "Is this review positive or negative? I loved it."

The openai client reads OPENAI_BASE_URL and OPENAI_API_KEY where they are set.
"""

import os
import sys

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam


def main() -> None:
    """Ask once, whole and streamed, and say which adapter answered and why."""
    request = " ".join(sys.argv[1:]) or "Is this review positive or negative? I loved it."
    client = OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": request}]
    reply = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=messages,
        max_tokens=32,
        temperature=0,
    )
    answer = reply.parse()
    print(f"adapter: {reply.headers['x-traitroute-adapter']} (the answer names {answer.model})")
    print(f"predicted gain: {reply.headers['x-traitroute-gain']}")
    print(f"reason: {reply.headers['x-traitroute-reason']}")
    print(f"answer: {answer.choices[0].message.content}")

    stream = client.chat.completions.create(
        model="auto",
        messages=messages,
        max_tokens=32,
        temperature=0,
        stream=True,
    )
    print("streamed: ", end="")
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
