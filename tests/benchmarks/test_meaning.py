"""Distilling token vectors, and what is asked of an encoder."""

import meaning
import numpy as np
import pytest
from routing.distil import TokenVectors, distil

WORDS = ("sum", "add", "film", "movie", "review", "number", "the", "a", "of", "##s")


def texts(count: int = 300) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS[:-1], 6)) for _ in range(count)]


def said_of(some: list[str], true: np.ndarray) -> np.ndarray:
    means = np.array([true[[WORDS.index(w) for w in t.split()]].mean(axis=0) for t in some])
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def test_distilled_vectors_say_what_the_encoder_says_of_new_texts() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=(len(WORDS), 12))
    alone = (true @ rng.normal(size=(12, 12)) + rng.normal(size=true.shape)).astype(np.float32)
    noise = rng.normal(size=true.shape).astype(np.float32)
    every = texts()
    said = said_of(every, true)
    encoder = distil(TokenVectors(WORDS, alone, noise), every[:200], said[:200], learnt=8, words=2)
    assert encoder.width == 10
    wanted = said[200:] - said[:200].mean(axis=0)
    found = encoder.encode(every[200:])
    real = wanted @ wanted.T
    assert np.corrcoef((found @ found.T).ravel(), real.ravel())[0, 1] > 0.8


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
