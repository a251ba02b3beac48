"""Distilling token vectors, and what is asked of an encoder."""

import meaning
import numpy as np
import pytest
from routing.distil import TokenVectors, distil

TOKENS = ("?", "a", "the", "of", "film", "movie", "number", "##s", *(f"word{i}" for i in range(4000)))


def test_distilled_tokens_keep_their_likeness_and_frequent_ones_count_less() -> None:
    rng = np.random.default_rng(1)
    alone, words = rng.normal(size=(2, len(TOKENS), 12)).astype(np.float32)
    for view in (alone, words):
        view[TOKENS.index("movie")] = view[TOKENS.index("film")] + 0.3 * rng.normal(size=12)
    encoder = distil(TokenVectors(TOKENS, alone, words), width=20)
    assert encoder.width == 20
    film, movie, number = encoder.encode(["film", "movie", "number"])
    assert film @ movie > 0.8 > 0.6 > abs(film @ number)
    rare, with_frequent, with_rare = encoder.encode(["word3000", "the word3000", "word2000 word3000"])
    assert rare @ with_frequent > 0.99 > 0.95 > rare @ with_rare


@pytest.fixture
def prompts() -> meaning.Prompts:
    """Two data sets of one group in two wordings each, and one of another group."""
    names = [("sums", "arithmetic"), ("differences", "arithmetic"), ("films", "reviews")]
    rows = [(d, g, w, f"{d} {i}") for d, g in names for w in "ab" for i in range(2)]
    dataset, group, wording, item = (np.array(c) for c in zip(*rows, strict=True))
    return meaning.Prompts([""] * len(rows), dataset, group, wording, item)


def test_an_encoder_that_knows_the_data_set_finds_its_other_wording(prompts: meaning.Prompts) -> None:
    everything = np.ones(len(prompts.texts), bool)
    knows = (prompts.dataset[:, None] == prompts.dataset).astype(np.float32)
    assert meaning.reworded(prompts, knows, everything) == (1, 1)
    assert meaning.reworded(prompts, -knows, everything) == (0, pytest.approx(1 / 9))


def test_an_encoder_that_knows_the_group_finds_the_near_data_set(prompts: meaning.Prompts) -> None:
    everything = np.ones(len(prompts.texts), bool)
    knows = (prompts.group[:, None] == prompts.group).astype(np.float32)
    assert meaning.near(prompts, knows, everything) == (1, 1)
    assert meaning.near(prompts, -knows, everything) == (0, pytest.approx(1 / 5))


def test_an_encoder_agrees_with_itself(prompts: meaning.Prompts) -> None:
    rng = np.random.default_rng(0)
    likeness, other = rng.normal(size=(2, 12, 40))
    no_group = np.zeros((12, 40), bool)
    assert meaning.agreement(likeness, likeness, no_group) == 1
    assert meaning.agreement(likeness, other, no_group) < 0.6
