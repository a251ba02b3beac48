"""A fixed probe: by how much an adapter changes what comes next after a few texts, and by how much chance alone does.

Servers have answered as the base model, in silence, where they were asked for an adapter. So base and adapter are given
the same texts, as a user's turn, and the log-probabilities of what the answers begin with are compared. The figure is
the largest difference, in nats. Base differs from itself too, since arithmetic is rounded differently in each batch:
that noise is measured between prompts read alone and read together. On SmolLM2-135M it is 0.00003 nats in float32 and
0.2 to 0.3 in bfloat16, and an adapter trained for a minute differs by 12 (docs/decisions.md).
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...adapters import Adapter, InputError, RefusalError, RunError
from .engine import Engine, EngineRequest, Message

TEXTS = (
    "Is the sky blue? Answer yes or no.",
    "Rate the remark as positive, neutral or negative: The food was cold.",
    "What is 17 + 25?",
    "Write a Python function that reverses a list.",
    "Summarise in one sentence: The meeting was moved to Tuesday, for the room was taken.",
    "法国的首都是哪里？",
    "Какая столица у Франции?",
    "ما هي عاصمة فرنسا؟",
)
"""Tasks of several kinds, in several scripts: an adapter that changes answers changes some of these."""
BEGINNINGS = ("Yes", "No", "The", "I", "positive", "42", "def", "Paris")
"""What answers may begin with, for engines that score given texts."""
LIKELIEST = 20
"""How many next tokens are compared, where the engine gives their log-probabilities; vLLM gives up to so many."""
MULTIPLE = 3.0
"""The noise under other traffic was up to 1.1 times the noise as measured here."""
FLOOR = 1e-3
"""A change of a thousandth of a token's probability counts as none, where there is no noise at all."""

Distribution = Mapping[Any, float]
"""Natural-log probabilities of the likeliest tokens after one text."""
Reading = Sequence[Distribution]
"""A distribution for each of `TEXTS`."""


class ProbeError(RunError):
    """The probe could not be read."""


@dataclass(frozen=True)
class Effect:
    """The largest change of a log-probability, and the base model's own from batch to batch, both in nats."""

    nats: float
    noise: float

    @property
    def threshold(self) -> float:
        """What a change must exceed to be told from noise."""
        return max(MULTIPLE * self.noise, FLOOR)

    @property
    def is_shown(self) -> bool:
        """Whether the adapter changes something."""
        return self.nats > self.threshold

    @classmethod
    def measured(cls, adapter: Adapter) -> "Effect | None":
        """What was recorded when the adapter was measured."""
        return None if adapter.effect is None or adapter.noise is None else cls(adapter.effect, adapter.noise)

    def __str__(self) -> str:
        return f"{self.nats:.3g} nats on the probe, noise {self.noise:.2g}"


def messages(text: str) -> tuple[Message, ...]:
    """One of the probe's texts as a conversation."""
    return ({"role": "user", "content": text},)


def difference(one: Reading, other: Reading) -> float:
    """The largest difference between two readings, in nats.

    Raises:
        ProbeError: a distribution holds no finite number.
    """
    return max(_gap(a, b) for a, b in zip(one, other, strict=True))


def _gap(one: Distribution, other: Distribution) -> float:
    a, b = ({token: p for token, p in each.items() if math.isfinite(p)} for each in (one, other))
    if not a or not b:
        raise ProbeError("no finite log-probabilities")
    # A token that only one of them lists is no likelier in the other than the last one there.
    least_a, least_b = min(a.values()), min(b.values())
    gaps = [abs(a[t] - b[t]) if t in b else a[t] - least_b for t in a]
    return max(0.0, *gaps, *(b[t] - least_a for t in b if t not in a))


def within_vocabulary(ids: Sequence[int], size: int) -> list[int]:
    """Token ids of which none is beyond the `size` of a model's vocabulary, as those of unknown words may be."""
    return [i if 0 <= i < size else 1 + n % (size - 1) for n, i in enumerate(ids)]


@dataclass
class EngineProbe:
    """The probe on an engine that scores given texts; the base model is read once, or found to be unreadable once."""

    engine: Engine
    _base: float | None = field(default=None, init=False)
    _unreadable: bool = field(default=False, init=False)
    _together: Reading = field(default=(), init=False)

    def effect(self, adapter: Adapter) -> Effect | None:
        """The effect of an adapter; None where this engine cannot read the probe, or gives no likelihoods."""
        if self._unreadable:
            return None
        try:
            noise = self._noise()
        except ProbeError:
            self._unreadable = True
            return None
        with suppress(ProbeError):
            return Effect(difference(self._together, self._read(adapter, TEXTS)), noise)
        return None

    def _noise(self) -> float:
        if self._base is None:
            try:
                self._together = self._read(None, TEXTS)
                # Alone, each is a batch of its own.
                alone = [self._read(None, (text,))[0] for text in TEXTS]
            except (InputError, RefusalError) as exc:
                raise ProbeError("the base model is not asked such texts") from exc
            self._base = difference(self._together, alone)
        return self._base

    def _read(self, adapter: Adapter | None, texts: Sequence[str]) -> Reading:
        asked = [EngineRequest(messages(text), adapter, max_tokens=1, candidates=BEGINNINGS) for text in texts]
        reading = [dict(zip(BEGINNINGS, result.log_likelihoods, strict=False)) for result in self.engine.run(asked)]
        if not all(any(map(math.isfinite, each.values())) for each in reading):
            raise ProbeError("the engine gives no likelihoods")
        return reading
