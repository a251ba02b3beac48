"""Chat prompts and candidates as token ids: one rule for every engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...adapters import BaseModelError
from .engine import Message


class PromptTokenizer:
    """Applies a base model's chat template; models without one get the plain message texts."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        except (OSError, ValueError) as exc:
            raise BaseModelError(
                f"{base} holds no tokenizer that transformers can load: {exc}"
            ) from exc

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to and including the start of the assistant's turn."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer("\n".join(m["content"] for m in messages) + "\n")["input_ids"]
        return self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True
        )["input_ids"]

    def candidate(self, text: str) -> list[int]:
        """Token ids of an answer that follows `prompt`, without an end-of-turn token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated token ids, special tokens dropped."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)
