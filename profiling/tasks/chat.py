"""Chats in the form of OpenAI's API, as rows and logs hold them: checked, and made plain for a chat template.

Content in parts becomes one text, `developer` becomes `system`, and the arguments of a tool call become an object, as
vLLM does before it applies a template. An answer that calls a tool is written as JSON, `{"name": …, "arguments": …}`:
every family of models has its own form for it, and the metric `json` finds the object in most of them.
"""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...adapters import SuiteError

Message = dict[str, Any]
MOST_MESSAGES = 1_000
MOST_TOOLS = 200
_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Chat:
    """A conversation up to the answer that is wanted, and that `answer`, empty where it is not known."""

    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()
    answer: str = ""

    @property
    def asked(self) -> str:
        """The last user turn."""
        return self.messages[self._place]["content"]

    def asking(self, text: str) -> tuple[Message, ...]:
        """The messages with `text` as the last user turn."""
        place = self._place
        changed = {**self.messages[place], "content": text}
        return (*self.messages[:place], changed, *self.messages[place + 1 :])

    @property
    def _place(self) -> int:
        return max(i for i, message in enumerate(self.messages) if message["role"] == "user")


def read_chat(messages: Any, tools: Any, where: str) -> Chat:
    """A chat from a row's or request's `messages` and `tools`, either of which may be written as JSON text.

    A last turn of the assistant is the answer.

    Raises:
        SuiteError: they are no chat of texts in which a user asks for something.
    """
    try:
        chat = _chat(messages, tools, where)
        json.dumps([chat.messages, chat.tools, chat.answer], ensure_ascii=False).encode()
    except RecursionError as exc:
        raise SuiteError(f"{where}: nested too deeply: give it flatter") from exc
    except TypeError as exc:
        raise SuiteError(f"{where}: holds what is no JSON: {exc}") from exc
    except UnicodeEncodeError as exc:
        raise SuiteError(f"{where}: a text holds half a character (a lone surrogate): it was cut inside one") from exc
    return chat


def _chat(messages: Any, tools: Any, where: str) -> Chat:
    turns = _list(messages, "messages", where)
    if not 0 < len(turns) <= MOST_MESSAGES:
        raise SuiteError(f'{where}: "messages" holds {len(turns)} messages: give 1 to {MOST_MESSAGES}')
    plain = [plain_message(turn, where) for turn in turns]
    answer = answer_text(plain.pop()) if plain[-1]["role"] == "assistant" else ""
    if not any(message["role"] == "user" for message in plain):
        raise SuiteError(f'{where}: no message before the answer has the role "user": nothing is asked')
    return Chat(tuple(plain), _tools(tools, where), answer)


def answer_text(message: Message) -> str:
    """What an assistant's message says, or the tool that it calls as JSON."""
    if message["content"] or not message.get("tool_calls"):
        return message["content"]
    called = message["tool_calls"][0]["function"]
    return json.dumps({"name": called["name"], "arguments": called["arguments"]}, ensure_ascii=False)


def content_text(content: Any, where: str) -> str:
    """The text of a message's content.

    Raises:
        SuiteError: it holds something else than text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise SuiteError(f"{where}: a message's content is text or a list of parts, not {reprlib.repr(content)}")
    return "\n".join(_part(part, where) for part in content)


def _part(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, Mapping) else part
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        raise SuiteError(f"{where}: a message holds a part that is no text ({str(kind)[:40]}): tasks are of texts")
    return text


def plain_message(message: Any, where: str) -> Message:
    """A message in the form that chat templates read.

    Raises:
        SuiteError: it is none, or holds something else than text.
    """
    role = message.get("role") if isinstance(message, Mapping) else None
    role = "system" if role == "developer" else role
    if role not in _ROLES:
        raise SuiteError(
            f'{where}: a message is an object with a "role" ({", ".join(_ROLES)}) and "content", '
            f"not {reprlib.repr(message)}"
        )
    plain: Message = {"role": role, "content": content_text(message.get("content"), where)}
    if role == "assistant" and (calls := message.get("tool_calls")):
        plain["tool_calls"] = [_call(call, where) for call in _list(calls, "tool_calls", where)[:MOST_TOOLS]]
    if role == "tool":
        plain |= {key: message[key] for key in ("name", "tool_call_id") if isinstance(message.get(key), str)}
    return plain


def _call(call: Any, where: str) -> Message:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not (isinstance(function, Mapping) and isinstance(name, str)):
        raise SuiteError(f'{where}: a tool call has a "function" with a "name", which {reprlib.repr(call)} lacks')
    arguments = _without_nulls(_parsed(function.get("arguments")))
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _tools(tools: Any, where: str) -> tuple[Message, ...]:
    listed = [] if tools in (None, "") else _list(tools, "tools", where)
    for tool in listed:
        if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
            raise SuiteError(f'{where}: each of "tools" is an object with a "function", not {reprlib.repr(tool)}')
    if len(listed) > MOST_TOOLS:
        raise SuiteError(f'{where}: "tools" lists {len(listed)}: give at most {MOST_TOOLS}')
    return tuple(_without_nulls(tool) for tool in listed)


def _list(value: Any, name: str, where: str) -> list[Any]:
    value = _parsed(value)
    if not isinstance(value, list):
        raise SuiteError(f'{where}: "{name}" is a list, not {reprlib.repr(value)}')
    return value


def _parsed(value: Any) -> Any:
    """The value that a text holds as JSON, or the value itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _without_nulls(value: Any) -> Any:
    """The value without keys that hold nothing: Parquet gives every row the keys of all rows."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
