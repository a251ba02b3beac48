"""Outcomes and the texts that they may hold."""

from dataclasses import replace

import numpy as np
from traitroute.adapters import Outcomes, packed_texts


def outcomes(n: int) -> Outcomes:
    flags, counts = np.ones(n, np.bool_), np.ones(n, np.int32)
    return Outcomes(
        strict=flags,
        lenient=flags,
        score=flags.astype(np.float32),
        parse_failure=~flags,
        log_likelihood=np.zeros(n, np.float32),
        target_tokens=counts,
        output_tokens=counts,
        finish_reason=np.zeros(n, np.uint8),
        predicted_label=counts,
        output_digest=np.zeros(n, np.uint64),
        label_probabilities=np.zeros((n, 0), np.float32),
    )


def test_texts_survive_being_stored() -> None:
    texts = ["", "naïve", "two\nlines", ""]
    stored = replace(outcomes(4), **packed_texts(texts)).to_bytes()
    assert Outcomes.from_bytes(stored).texts == texts


def test_outcomes_without_texts_say_so() -> None:
    assert Outcomes.from_bytes(outcomes(3).to_bytes()).texts is None
