"""Answers in OpenAI's form: whole, in chunks of a stream, and an error in its middle."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from ..http.errors import error_body
from .generation import Finish

Kind = Literal["chat", "completion"]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Usage:
    """Tokens read and generated; the end-of-turn token is not counted."""

    prompt: int
    completion: int

    def to_json(self) -> dict[str, int]:
        """As clients expect it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True)
class AnswerForm:
    """The form of one answer of `model`; all its chunks share id and time."""

    kind: Kind
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish: Finish, usage: Usage) -> dict[str, Any]:
        """The answer at once."""
        chat = self.kind == "chat"
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {**self._frame("", [self._choice(said, finish)]), "usage": usage.to_json()}

    def opening(self) -> bytes:
        """The event before any text: chat names the role, completions need none."""
        return self._delta({"role": "assistant", "content": ""}, None) if self.kind == "chat" else b""

    def chunk(self, text: str, finish: Finish | None) -> bytes:
        """An event with some text, and at the end why it ended."""
        if self.kind == "chat":
            return self._delta({"content": text} if text else {}, finish)
        return _event(self._frame(".chunk", [self._choice({"text": text}, finish)]))

    def counted(self, usage: Usage) -> bytes:
        """The event that holds nothing but the usage."""
        return _event({**self._frame(".chunk", []), "usage": usage.to_json()})

    def _delta(self, delta: dict[str, str], finish: Finish | None) -> bytes:
        return _event(self._frame(".chunk", [self._choice({"delta": delta}, finish)]))

    def _choice(self, said: dict[str, Any], finish: Finish | None) -> dict[str, Any]:
        return {"index": 0, **said, "logprobs": None, "finish_reason": finish}

    def _frame(self, suffix: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chat = self.kind == "chat"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.id}",
            "object": f"chat.completion{suffix}" if chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return _event(error_body(500, message))


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
