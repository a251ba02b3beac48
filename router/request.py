"""From an OpenAI-style request body to the text that is routed.

The text is the *first* user turn that says something: it stays the same through a conversation, so every turn, in any
server process, routes to the same adapter and keeps its prefix cache, which a switch inside a
conversation loses whole (docs/decisions.md). System prompts are left out: agents repeat one system
prompt over unlike tasks.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..adapters import InputError
from .request_tokens import cut

NO_TEXT = "no-text: the request says nothing to route by, neither a word nor a sum"
"""Why the base model answers a request whose text does not say something."""

# Letters by their category, and yet nothing that is seen.
_FILLERS = "\u115f\u1160\u3164\uffa0"
_OPERATORS = re.escape("+-*/^=<>%×÷−·≤≥≠")
_SUM = re.compile(rf"\d[\s()]*[{_OPERATORS}][\s().{_OPERATORS}]*\d")


def says_something(text: str) -> bool:
    """Whether there is anything to route a text by: a letter of any script, or a sum, which is two numbers and an operator between."""
    read = cut(text)
    return any(c.isalpha() and c not in _FILLERS for c in read) or _SUM.search(read) is not None


def request_text(body: Mapping[str, Any], *, last: bool = False) -> str:
    """Return the text to route from a chat-completions (`messages`) or completions (`prompt`) body.

    That is the first user turn that says something, or with `last` the last one; of several prompts always the first. A body
    may be well-formed and hold none, as with images, tool results or token ids: then the text is empty.

    Raises:
        InputError: the body is malformed.
    """
    if "messages" in body:
        turns = _turns(body["messages"])
        texts = map(_user_text, reversed(turns) if last else turns)
    else:
        texts = _prompts(body.get("prompt"))
    return next(filter(says_something, texts), "")


def _turns(messages: Any) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise InputError('"messages" must be a list with at least one message')
    return messages


def _user_text(message: Any) -> str:
    if not isinstance(message, Mapping) or not isinstance(message.get("role", message.get("type")), str):
        raise InputError(f'each message must be an object with a "role", and not {reprlib.repr(message)}')
    return _content_text(message.get("content")) if message.get("role") == "user" else ""


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else () if content is None else (None,)
    return "\n".join(filter(None, map(_part_text, parts)))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise InputError('a user message\'s "content" must be text or a list of parts')
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _prompts(prompt: Any) -> Iterable[str]:
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt, list) and prompt:
        # Of what kind the others are is for the app to see: of token ids there may be a million.
        if isinstance(prompt[0], str):
            return (each for each in prompt if isinstance(each, str))
        if isinstance(prompt[0], int | list):
            return ()
    raise InputError('no text to route: the body needs "messages" with a message, or "prompt" as text or token ids')
