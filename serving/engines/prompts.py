"""Chat prompts and candidates as token ids: one rule for every engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...adapters import BaseModelError, InputError
from .engine import EngineRequest, Message


class PromptTokenizer:
    """Applies a base model's chat template; models without one get the plain message texts."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        except (OSError, ValueError) as exc:
            raise BaseModelError(f"{base} holds no tokenizer that transformers can load: {exc}") from exc

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to and including the start of the assistant's turn."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer("\n".join(m["content"] for m in messages) + "\n")["input_ids"]
        return self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]

    def candidate(self, text: str) -> list[int]:
        """Token ids of an answer that follows `prompt`, without an end-of-turn token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def room(self, request: EngineRequest) -> int:
        """Tokens that a request's prompt and the longest of its answers take."""
        candidates = [self.candidate(text) for text in request.candidates]
        return room(self.prompt(request.messages), candidates, request.max_tokens)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated token ids, special tokens dropped."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def room(prompt: Sequence[int], candidates: Sequence[Sequence[int]], max_tokens: int) -> int:
    """Tokens that a prompt and the longest of its answers take; vLLM writes one token more than it scores."""
    return len(prompt) + max([max_tokens, *(len(c) + 1 for c in candidates)])


def check_room(rooms: Sequence[int], context: int | None) -> None:
    """Check that prompts fit with their answers; past its context a model answers too, and wrongly.

    Raises:
        InputError: one does not.
    """
    over = [tokens for tokens in rooms if context is not None and tokens > context]
    if over:
        raise InputError(
            f"{len(over)} of {len(rooms)} prompts take up to {max(over)} tokens with their answers, more than the "
            f"{context} that there is room for here: profile again, which leaves such rows out, or measure with "
            "an engine that has more room"
        )
