"""The probe, read from an upstream by OpenAI's API: whatever each make of server gives of log-probabilities.

Chat completions are asked first, for their templates are what adapters were trained in, then plain completions, which
base models without a template have. Of a server that gives no log-probabilities the greedy texts are compared: where
they differ, the adapter is applied, and where they do not, nothing is known.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from ..engines.probe import Distribution, ProbeError, messages

LIKELIEST = 5
"""How many next tokens are asked for: some servers give no more."""
WORDS = 8
"""How many tokens of text are asked for, in case there is nothing else."""
CERTAIN = 100.0
"""What two different texts count as, in nats."""
TEXT_ONLY = object()
"""Is among the tokens where there are no log-probabilities but only a text."""
Post = Callable[[str, Mapping[str, Any]], Awaitable[httpx.Response]]


async def next_tokens(post: Post, fields: Mapping[str, Any], text: str) -> Distribution:
    """What a server says of the token that comes next after one text; `fields` name the model in the request's body.

    Raises:
        ProbeError: it refuses, or answers something else.
    """
    wanted: dict[str, Any] = {"max_tokens": WORDS, "temperature": 0}
    chat = {"messages": messages(text), "logprobs": True, "top_logprobs": LIKELIEST}
    response = await post("/v1/chat/completions", {**wanted, **chat, **fields})
    if response.is_client_error:
        plain = {"prompt": text, "logprobs": LIKELIEST}
        response = await post("/v1/completions", {**wanted, **plain, **fields})
    if not response.is_success:
        raise ProbeError(f"status {response.status_code}")
    try:
        choice = response.json()["choices"][0]
        return _distribution(choice)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as exc:
        raise ProbeError("no answer of OpenAI's form") from exc


def _distribution(choice: Mapping[str, Any]) -> Distribution:
    given = choice.get("logprobs") or {}
    if content := given.get("content"):
        # Of several tokens that are written alike the likeliest counts, as the listing has them.
        listed = content[0]["top_logprobs"] or content[:1]
        return {str(each["token"]): float(each["logprob"]) for each in reversed(listed)}
    if plain := given.get("top_logprobs"):
        return {str(token): float(value) for token, value in plain[0].items()}
    written = choice["message"]["content"] if "message" in choice else choice["text"]
    return {f"text {written}": 0.0, TEXT_ONLY: -CERTAIN}
