"""Choose the next token of every row, each by its own temperature, nucleus and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

_GREEDY_BELOW = 1e-5
"""Dividing by a lower temperature would overflow."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; a temperature of 0 takes the likeliest, and `seed` None is a fresh seed."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


class Sampler:
    """Draws the tokens of one answer: its own generator makes a seed repeatable in any batch."""

    def __init__(self, sampling: Sampling) -> None:
        self.greedy = sampling.temperature < _GREEDY_BELOW
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        if not self.greedy:
            # Typed as taking subclasses of tensors that nothing makes.
            self._temperature: Any = TemperatureLogitsWarper(float(sampling.temperature))
            self._nucleus: Any = TopPLogitsWarper(float(sampling.top_p))

    def draw(self, logits: torch.Tensor) -> int:
        """A token for `logits` (vocabulary,)."""
        ids = torch.empty(1, 0, dtype=torch.long)
        scores = self._nucleus(ids, self._temperature(ids, logits[None].float().cpu()))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


def next_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """The next token of every row of `logits` (rows, vocabulary); None where the model computed no number."""
    likeliest = logits.argmax(dim=-1).tolist()
    sound = logits.amax(dim=-1).isfinite().tolist()
    return [
        None if not fine else token if sampler.greedy else sampler.draw(row)
        for fine, token, sampler, row in zip(sound, likeliest, samplers, logits, strict=True)
    ]
