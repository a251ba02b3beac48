"""From an OpenAI-style request body to the text that is routed.

The text is the *first* user turn: it stays the same through a conversation, so every turn, in any
server process, routes to the same adapter and keeps its prefix cache, which a switch inside a
conversation loses whole (docs/decisions.md). System prompts are left out: agents repeat one system
prompt over unlike tasks.
"""

from collections.abc import Mapping
from typing import Any

from ..adapters import InputError


def request_text(body: Mapping[str, Any]) -> str:
    """Return the text to route from a chat-completions (`messages`) or completions (`prompt`) body.

    Raises:
        InputError: the body holds neither a user message nor a text prompt.
    """
    if "messages" in body:
        return _first_user_turn(body["messages"])
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    raise InputError(
        'no text to route: the body needs "messages" with a user message, or "prompt" as text '
        "(token ids cannot be routed: name an adapter or the base model instead)"
    )


def _first_user_turn(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        raise InputError('"messages" must be a list with at least one message')
    for message in messages:
        if isinstance(message, Mapping) and message.get("role") == "user":
            return _content_text(message.get("content"))
    raise InputError(
        '"messages" holds no message with "role": "user", so there is nothing to route'
    )


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [p.get("text") for p in content if isinstance(p, Mapping)]
        return "\n".join(p for p in parts if isinstance(p, str))
    raise InputError('a user message\'s "content" must be text or a list of parts')
