"""A cell of the transfer matrix: one adapter (or the base model) measured on one task, per example."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save


class FinishReason(IntEnum):
    """Why a generation ended: the model stopped by itself, or ran into the token limit."""

    STOP = 0
    LENGTH = 1


@dataclass(frozen=True)
class Outcomes:
    """What one adapter did on each of a task's `n` test examples, in the task's order.

    Shapes are (n,) unless said otherwise. `predicted_label` is an index into the task's labels, or
    -1 where none was found; `label_probabilities` has shape (n, labels) and is (n, 0) for tasks
    without labels. `log_likelihood` is the sum of natural-log probabilities of the gold answer's
    `target_tokens` tokens. `output_digest` is a 64-bit hash of each output text: enough to
    tell whether two adapters answered alike; the texts themselves are kept only where a suite asks
    for it, as UTF-8 bytes end to end, of which text i ends before `text_ends[i]`.
    """

    strict: NDArray[np.bool_]
    lenient: NDArray[np.bool_]
    parse_failure: NDArray[np.bool_]
    log_likelihood: NDArray[np.float32]
    target_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    finish_reason: NDArray[np.uint8]
    predicted_label: NDArray[np.int32]
    output_digest: NDArray[np.uint64]
    label_probabilities: NDArray[np.float32]
    text_bytes: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    text_ends: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.strict)

    @property
    def texts(self) -> list[str] | None:
        """What the adapter wrote on each example, or None where it was not kept."""
        if len(self.text_ends) != len(self):
            return None
        whole = self.text_bytes.tobytes()
        starts = [0, *self.text_ends[:-1]]
        return [whole[a:b].decode() for a, b in zip(starts, self.text_ends, strict=True)]

    def to_bytes(self) -> bytes:
        """Serialise as safetensors, one tensor a field."""
        return save({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        return cls(**load(data))


@dataclass(frozen=True)
class Cell:
    """The outcomes of `adapter` (None: the base model) on `task`.

    `key` is the digest of everything that determines the result: base model, weights, task and
    settings; a cell with the same key need not be measured again.
    """

    key: str
    adapter: str | None
    task: str
    outcomes: Outcomes

    @property
    def score(self) -> float:
        """Share of examples answered correctly by the strict rule, in [0, 1]."""
        return float(np.mean(self.outcomes.strict))


def packed_texts(texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The fields of `Outcomes` that keep `texts`."""
    parts = [text.encode() for text in texts]
    return {
        "text_bytes": np.frombuffer(b"".join(parts), np.uint8),
        "text_ends": np.cumsum([len(part) for part in parts], dtype=np.int64),
    }
