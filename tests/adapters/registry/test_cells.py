"""Outcomes and the texts that they may hold."""

from dataclasses import replace

import numpy as np
from traitroute.adapters import Outcomes, packed_texts

from ...made_up_outcomes import made_up_outcomes


def test_texts_survive_being_stored() -> None:
    texts = ["", "naïve", "two\nlines", ""]
    stored = replace(made_up_outcomes(np.ones(4)), **packed_texts(texts)).to_bytes()
    assert Outcomes.from_bytes(stored).texts == texts


def test_outcomes_without_texts_say_so() -> None:
    assert Outcomes.from_bytes(made_up_outcomes(np.ones(3)).to_bytes()).texts is None
