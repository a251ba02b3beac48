"""The engine protocol: batches in which each item names its adapter are generated and scored.

Profiling measures on the same engines that serve, so that what is measured is what is served.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...adapters import Adapter, FinishReason

Message = dict[str, str]


@dataclass(frozen=True)
class EngineRequest:
    """One prompt for one adapter (None: the base model).

    Up to `max_tokens` tokens are generated greedily (0: none), and the log-likelihood of each of
    `candidates` as the assistant's answer is computed.
    """

    messages: tuple[Message, ...]
    adapter: Adapter | None = None
    max_tokens: int = 0
    candidates: tuple[str, ...] = ()


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
