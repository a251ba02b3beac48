"""The engine protocol: batches in which each request names its adapter are answered and scored.

Profiling measures on the engines that serve, so that what is measured is what is served. All engines turn messages into
token ids by the one rule of `PromptTokenizer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError

from ...adapters import Adapter, BaseModelError, FinishReason, InputError

Message = dict[str, Any]


@dataclass(frozen=True)
class EngineRequest:
    """One prompt for one adapter (None: the base model).

    Up to `max_tokens` tokens are generated greedily (0: none), and the log-likelihood of each of
    `candidates` as the assistant's answer is computed. `tools` are what the model is told that it may call.
    """

    messages: tuple[Message, ...]
    adapter: Adapter | None = None
    max_tokens: int = 0
    candidates: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class EngineResult:
    """The greedy answer, and for each candidate the sum of natural-log probabilities of its tokens."""

    text: str
    output_tokens: int
    finish_reason: FinishReason
    log_likelihoods: tuple[float, ...]
    candidate_tokens: tuple[int, ...]


class Engine(Protocol):
    """Runs batches of requests; `name` goes into the key of every cell measured on it."""

    name: str

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`; results come in the order of the requests."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass(frozen=True)
class TokenizedRequest:
    """A request's prompt and candidates as token ids."""

    prompt: list[int]
    candidates: list[list[int]]
    max_tokens: int

    @property
    def room(self) -> int:
        """Tokens that the prompt and the longest answer take; vLLM writes one token more than it scores."""
        return len(self.prompt) + max([self.max_tokens, *(len(c) + 1 for c in self.candidates)])


def prompt_ids(tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
    """Token ids up to and including the start of the assistant's turn, by a tokenizer of transformers.

    Raises:
        InputError: its chat template refuses the messages.
    """
    if tokenizer.chat_template is None:
        return tokenizer("\n".join(m["content"] for m in messages) + "\n")["input_ids"]
    return chat_tokens(tokenizer, messages, tools, add_generation_prompt=True)


class PromptTokenizer:
    """Applies a base model's chat template; models without one get the plain message texts."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        except (OSError, ValueError) as exc:
            raise BaseModelError(f"{base} holds no tokenizer that transformers can load: {exc}") from exc

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids up to and including the start of the assistant's turn.

        Raises:
            InputError: the base model's chat template refuses the messages.
        """
        return prompt_ids(self.tokenizer, messages, tools)

    def candidate(self, text: str) -> list[int]:
        """Token ids of an answer that follows `prompt`, without an end-of-turn token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def tokenize(self, request: EngineRequest) -> TokenizedRequest:
        """The request as token ids."""
        candidates = [self.candidate(text) for text in request.candidates]
        return TokenizedRequest(self.prompt(request.messages, request.tools), candidates, request.max_tokens)

    def tokenize_all(self, requests: Sequence[EngineRequest], *, context: int | None) -> list[TokenizedRequest]:
        """The requests as token ids; beyond its `context` a model answers too, and wrongly.

        Raises:
            InputError: one does not fit into `context` tokens with its answers.
        """
        tokenized = [self.tokenize(request) for request in requests]
        over = [each.room for each in tokenized if context is not None and each.room > context]
        if over:
            raise InputError(
                f"{len(over)} of {len(tokenized)} prompts take up to {max(over)} tokens with their answers, more than "
                f"the {context} that there is room for here: profile again, which leaves such rows out, or measure "
                "with an engine that has more room"
            )
        return tokenized

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated token ids, special tokens dropped."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def chat_tokens(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), **options: Any
) -> list[int]:
    """Token ids of `messages` by a tokenizer's chat template.

    Raises:
        InputError: the template refuses them; some take no system prompt, or no two turns of one role.
    """
    if tools:
        options["tools"] = list(tools)
    try:
        return tokenizer.apply_chat_template(list(messages), return_dict=True, **options)["input_ids"]
    except (TemplateError, TypeError) as exc:
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(
            f"the base model's chat template refuses messages of the roles {roles}: {exc}; give rows that it takes, "
            "or another base model"
        ) from exc
