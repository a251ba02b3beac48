"""Likeness of adapters by their weights, and rows predicted from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cold_start.rows import PENALTIES, correlations, mixed, nearest, predicted, ratio
from cold_start.weights import Updates, likenesses, read_updates
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pair(rank: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rank, 20)), rng.normal(size=(30, rank))


def structured(adapters: int = 12) -> tuple[Array, Array]:
    """Gains that go with three hidden numbers of each adapter, and the likeness by these."""
    hidden = np.random.default_rng(1).normal(size=(adapters, 3))
    noise = np.random.default_rng(2).normal(size=(adapters, 8))
    return hidden @ hidden.T, hidden @ np.random.default_rng(3).normal(size=(3, 8)) + 0.3 * noise


def test_likeness_is_that_of_the_products_which_are_never_formed() -> None:
    pairs = [pair(4, 0), pair(2, 1), pair(4, 2)]
    found = likenesses([Updates.of(pairs)])
    products = [b @ a for a, b in pairs]
    grams = [w.T @ w for w in products]
    for name, of in (("cosine of updates", products), ("SpectR's spectra", grams)):
        expected = [[np.sum(v * w) / np.linalg.norm(v) / np.linalg.norm(w) for w in of] for v in of]
        assert found[name] == pytest.approx(np.array(expected))
    first = [np.linalg.svd(w)[2][0] for w in products]
    assert found["Arrow's directions"][0, 1] == pytest.approx((first[0] @ first[1]) ** 2)


def test_the_same_update_in_other_factors_is_the_same() -> None:
    a, b = pair(4, 0)
    turn = np.random.default_rng(9).permutation(4)
    sizes = np.array([[2.0], [0.5], [-3.0], [1.0]])
    found = likenesses([Updates.of([(a, b), ((sizes * a)[turn], (b / sizes.T)[:, turn]), pair(4, 1)])])
    assert all(kernel[0] == pytest.approx(kernel[1]) for kernel in found.values())
    assert found["overlap of subspaces"][0, 1] == pytest.approx(1)


def test_a_row_is_what_kriging_from_the_others_gives() -> None:
    kernel, gains = structured()
    rest = np.delete(np.arange(12), 4)
    about = np.eye(11) - 1 / 11
    known, mean = about @ kernel[np.ix_(rest, rest)] @ about, gains[rest].mean(axis=0)
    near = about @ (kernel[4, rest] - kernel[np.ix_(rest, rest)].mean(axis=0))
    rows = [
        mean + near @ np.linalg.solve(known + p * known.trace() / 11 * np.eye(11), gains[rest] - mean)
        for p in PENALTIES[:-1]
    ]
    found = predicted(kernel, gains, 4)
    assert min(np.abs(found - row).max() for row in rows) < 1e-9
    assert np.sum((found - gains[4]) ** 2) < 0.5 * np.sum((mean - gains[4]) ** 2)


def test_what_says_nothing_leaves_the_mean_row() -> None:
    _, gains = structured()
    found = predicted(np.eye(12), gains, 4)
    assert found == pytest.approx(np.delete(gains, 4, axis=0).mean(axis=0))


def test_an_adapters_own_row_is_not_looked_at() -> None:
    kernel, gains = structured()
    other = gains.copy()
    other[4] = 99.0
    for way in (predicted, nearest):
        assert (way(kernel, gains, 4) == way(kernel, other, 4)).all()


def test_kernels_count_alike_whatever_their_units() -> None:
    kernel, _ = structured()
    assert mixed([kernel, np.eye(12)]) == pytest.approx(mixed([1000 * kernel + 7, np.eye(12)]))


def test_figures_of_rows() -> None:
    rows = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    assert correlations(rows, np.array([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]])) == pytest.approx([1.0, 0.0])
    found = ratio(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.5, 1.5))


@pytest.mark.slow
def test_updates_are_those_that_peft_adds(tmp_path: Path, tiny: Any) -> None:
    peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
    transformers = pytest.importorskip("transformers")
    base = tiny.save(tmp_path / "base")
    folders = [
        tiny.save_adapter(base, tmp_path / name, seed=seed, **lora)
        for seed, (name, lora) in enumerate({"a": {}, "b": {"r": 2, "use_rslora": True}}.items())
    ]
    sizes = []
    for folder in folders:
        model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), str(folder))
        layers = [m for m in model.modules() if hasattr(m, "get_delta_weight")]
        sizes.append(sorted(float(layer.get_delta_weight("default").norm()) for layer in layers))
    found = np.array([u.norms for u in read_updates(folders)]).T
    assert np.sort(found, axis=1) == pytest.approx(np.array(sizes), rel=1e-5)
