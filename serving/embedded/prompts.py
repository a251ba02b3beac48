"""What is to be continued, a conversation or a prompt: taken from a request, or refused with what was wrong.

It is refused by its characters before any of it is tokenized: tokenizing takes 160 times its bytes of memory.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from ..engines.engine import PromptTokenizer
from ..http.errors import RefusedError

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TOOL_ROLES = ("tool", "function")
_READ = ("role", "content", "name")
_HISTORY = ("tool_calls", "tool_call_id", "function_call")
_SAID = ("refusal", "audio", "annotations", "reasoning", "reasoning_content")
"""What answers hold besides; clients send them back whole, with nothing in these."""
_PARTS = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
    "file": "file",
    "refusal": "refusal",
}


@dataclass(frozen=True)
class Context:
    """How long a prompt may be: so many tokens, each of so many characters at most."""

    tokens: int
    longest: int

    @classmethod
    def of(cls, tokenizer: PromptTokenizer, tokens: int) -> Self:
        """The context of a model with this tokenizer.

        A space beside each token is counted in, for some tokenizers drop it.
        """
        return cls(tokens, 1 + max(map(len, tokenizer.tokenizer.get_vocab())))

    @property
    def characters(self) -> int:
        """More of them are more tokens than fit."""
        return self.tokens * self.longest

    def check_characters(self, count: int, param: str) -> None:
        """Refuse a text of `count` characters that cannot fit.

        Raises:
            RefusedError: it cannot.
        """
        if count > self.characters:
            refuse(
                param,
                f"{count} characters are more than this server's context of {self.tokens} tokens holds",
            )

    def check_items(self, items: list[Any], param: str) -> None:
        """Refuse a list whose items take a token each, at least, and cannot fit.

        Raises:
            RefusedError: they cannot.
        """
        if not items:
            refuse(param, "the list is empty")
        if len(items) > self.tokens:
            refuse(param, f"{len(items)} items are more than this server's context of {self.tokens}")


def read_messages(given: Any, context: Context) -> list[dict[str, str]]:
    """The messages of a conversation as chat templates take them.

    Raises:
        RefusedError: they are wrong, hold more than text, or cannot fit into the context.
    """
    if not isinstance(given, list):
        refuse("messages", f"wanted a list of messages, not {kind(given)}")
    context.check_items(given, "messages")
    messages = [_message(each, f"messages.{i}") for i, each in enumerate(given)]
    context.check_characters(sum(len(m["content"]) + 1 for m in messages), "messages")
    return messages


def read_prompt(given: Any, context: Context) -> str | list[int]:
    """The one prompt of a completion, as text or token ids.

    Raises:
        RefusedError: it is wrong, one of several, or cannot fit into the context.
    """
    if isinstance(given, list) and given and isinstance(given[0], str | list):
        if len(given) > 1:
            refuse("prompt", "send one prompt a request: several are not offered")
        given = given[0]
    if isinstance(given, str):
        context.check_characters(len(given), "prompt")
        return given
    if not isinstance(given, list):
        refuse("prompt", f"wanted a text or a list of token ids, not {kind(given)}")
    context.check_items(given, "prompt")
    for i, token in enumerate(given):
        if type(token) is not int:
            refuse(f"prompt.{i}", f"wanted a token id, not {kind(token)}")
    return given


def refuse(where: str, message: str) -> NoReturn:
    """Say what is wrong with a part of the request."""
    raise RefusedError(f"{where}: {message}", param=where)


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    kinds = {str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def _message(given: Any, where: str) -> dict[str, str]:
    if not isinstance(given, dict):
        refuse(where, f"wanted an object with role and content, not {kind(given)}")
    _check_fields(given, where)
    role = _role(given.get("role"), f"{where}.role")
    content = given.get("content")
    if isinstance(content, list):
        content = "\n".join(_texts(content, f"{where}.content"))
    elif not isinstance(content, str):
        refuse(f"{where}.content", f"{kind(content)} is not taken by this server; wanted text")
    return {"role": role, "content": content}


def _role(given: Any, where: str) -> str:
    if isinstance(given, str) and given in _ROLES:
        return _ROLES[given]
    wanted = f"wanted {', '.join(_ROLES)}"
    if given in _TOOL_ROLES:
        refuse(where, f"{given} messages (tool history) are not taken by this server; {wanted}")
    refuse(where, f"{reprlib.repr(given)} is no role; {wanted}")


def _check_fields(message: Mapping[str, Any], where: str) -> None:
    for name, value in message.items():
        if name in _READ or value in (None, []):
            continue
        if name in _HISTORY:
            refuse(f"{where}.{name}", "tool history is not taken by this server; wanted text")
        if name in _SAID:
            refuse(f"{where}.{name}", "not taken by this server; wanted text, in content")
        refuse(where, f"{reprlib.repr(name)} is not known; a message has {', '.join(_READ)}")


def _texts(parts: list[Any], where: str) -> Iterable[str]:
    for i, part in enumerate(parts):
        form = part.get("type") if isinstance(part, dict) else None
        if isinstance(form, str) and form in _PARTS:
            refuse(f"{where}.{i}", f"{_PARTS[form]} parts are not taken by this server; wanted text")
        text = part.get("text") if form == "text" else None
        if not isinstance(text, str):
            refuse(f"{where}.{i}", 'wanted a text part, as in {"type": "text", "text": "..."}')
        yield text
