"""Style is measured by a fixed set of features, and datasets written alike are found alike."""

import numpy as np
import pytest
from traitroute.adapters import InputError
from traitroute.profiling.analysis.linguistics import Syntax
from traitroute.profiling.analysis.style import (
    COARSE,
    FUNCTION_WORDS,
    POS,
    STYLE_NAMES,
    StyleFeatures,
    _syllables,
    style_features,
    style_similarity,
)


def tagged(pos: str, *, sentences: int = 1) -> Syntax:
    tags = tuple(pos.split())
    return Syntax(("dep",) * len(tags), tags, sentences, 1, 1.0, cut=False)


def feature(name: str, text: str, pos: str = "X", *, sentences: int = 1) -> float:
    features = style_features([text], [tagged(pos, sentences=sentences)])
    return features.values[0, features.names.index(name)]


def test_feature_set_is_fixed_and_named_once() -> None:
    assert len(set(STYLE_NAMES)) == len(STYLE_NAMES)
    assert len(set(FUNCTION_WORDS)) == len(FUNCTION_WORDS) > 100
    assert set(COARSE) < set(POS)
    assert style_features([], []).values.shape == (0, len(STYLE_NAMES))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("word: the", 2 / 6),
        ("word: it", 1 / 6),
        ("character: .", 1 / 25),
        ("character: digit", 2 / 25),
        ("character: capital", 1 / 25),
        ("character: line end", 1 / 25),
        ("bigram: DET NOUN", 2 / 6),
        ("trigram: function nominal verbal", 1 / 5),
        ("readability: letters a word", 16 / 6),
    ],
)
def test_rates_of_a_known_text(name: str, value: float) -> None:
    text = "The cat on the mat\nit 42."
    assert len(text) == 25
    pos = "DET NOUN VERB ADP DET NOUN NUM"
    assert feature(name, text, pos) == pytest.approx(value)


def test_contractions_count_as_their_parts() -> None:
    assert feature("word: it", "it's") == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("cat", 1),
        ("the", 1),
        ("table", 2),
        ("make", 1),
        ("coffee", 2),
        ("reading", 2),
        ("rhythm", 1),
    ],
)
def test_syllables_are_about_right(word: str, count: int) -> None:
    assert _syllables(word) == count


def test_reading_ease_is_that_of_flesch() -> None:
    text = "The cat sat on the mat. The dog ran."  # 9 words, 2 sentences, 9 syllables
    wanted = 206.835 - 1.015 * 9 / 2 - 84.6 * 1
    assert feature("readability: reading ease", text, sentences=2) == pytest.approx(wanted)


def test_empty_text_has_rates_of_zero() -> None:
    assert not style_features([""], [tagged("")]).values.any()


def test_parses_of_another_number_are_refused() -> None:
    with pytest.raises(InputError, match="2 texts with 1 parses"):
        style_features(["a", "b"], [tagged("X")])


def written(words: str, n: int, seed: int) -> StyleFeatures:
    """Texts of 40 words drawn from `words`, some of them in capitals."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(words.split(), size=40)) for _ in range(n)]
    return style_features(texts, [tagged("DET NOUN VERB")] * n)


def test_datasets_written_alike_are_the_nearest() -> None:
    features = {
        "prose": written("the of and to in dog house garden", 60, 0),
        "more prose": written("the of and to in ship water island", 60, 1),
        "orders": written("you must do this now! DOG HOUSE", 60, 2),
        "sums": written("12 + 7 = 19 - 4", 60, 3),
    }
    found = style_similarity(features, n_resamples=50)
    others = found.values - 9 * np.eye(4)
    assert found.names[int(others[0].argmax())] == "more prose"
    assert found.values[0, 1] > 0.5 > found.values[0, 2]
    assert found.split_half.min() > 0.5


def test_a_feature_equal_in_every_dataset_changes_nothing() -> None:
    features = {name: written("the of dog", 20, i) for i, name in enumerate("abc")}
    values = style_similarity(features, n_resamples=5).values
    assert np.isfinite(values).all()


def test_two_datasets_are_refused() -> None:
    one = written("the dog", 5, 0)
    with pytest.raises(InputError, match="three or more"):
        style_similarity({"a": one, "b": one})
