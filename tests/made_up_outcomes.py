"""Outcomes of cells that nobody measured."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from traitroute.adapters import Outcomes

TYPES: dict[str, Any] = {
    "strict": np.bool_,
    "lenient": np.bool_,
    "score": np.float32,
    "parse_failure": np.bool_,
    "log_likelihood": np.float32,
    "target_tokens": np.int32,
    "output_tokens": np.int32,
    "finish_reason": np.uint8,
    "predicted_label": np.int32,
    "output_digest": np.uint64,
}


def made_up_outcomes(right: ArrayLike, **parts: Any) -> Outcomes:
    """Answers of one token that are right or not, to a task without labels, unless `parts` say otherwise.

    A part is an array (n,), or one value for all; what is kept of texts and label probabilities is given as it is.
    """
    right = np.asarray(right, np.bool_)
    parts = {"strict": right, "lenient": right, "score": right, "target_tokens": 1, "output_tokens": 1} | parts
    rows: dict[str, Any] = {name: np.full(right.shape, parts.pop(name, 0), dtype) for name, dtype in TYPES.items()}
    kept: dict[str, Any] = {"label_probabilities": np.zeros((right.size, 0), np.float32)} | parts
    return Outcomes(**rows | kept)
