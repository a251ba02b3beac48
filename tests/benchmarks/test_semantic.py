"""The baseline semantic-router: its own choice, from embeddings that are given."""

import numpy as np
import pytest
from traitroute.adapters import InputError

pytest.importorskip(
    "semantic_router",
    reason="semantic-router is not installed: make benchmarks",
)
from routing import semantic
from routing.baselines import route_means

NAMES = ("cook", "pilot", "judge")
AXES = np.eye(4)
UTTERANCES = {name: AXES[i] + 0.05 * np.random.default_rng(i).normal(size=(8, 4)) for i, name in enumerate(NAMES)}


def test_unmistakable_requests_go_to_their_adapter() -> None:
    baseline = semantic.SemanticRouterBaseline().fit(NAMES, UTTERANCES, threshold=0.5)
    assert baseline.choose(AXES[[2, 0, 1, 0]]).tolist() == [2, 0, 1, 0]


def test_a_request_like_no_utterance_goes_to_none() -> None:
    baseline = semantic.SemanticRouterBaseline().fit(NAMES, UTTERANCES, threshold=0.5)
    assert baseline.choose(AXES[[3]]).tolist() == [-1]


def test_without_a_threshold_some_adapter_is_chosen() -> None:
    baseline = semantic.SemanticRouterBaseline().fit(NAMES, UTTERANCES)
    assert (baseline.choose(AXES) >= 0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.7, 0.9, 1.1])
def test_scores_at_a_threshold_choose_as_the_package_does(threshold: float) -> None:
    requests = np.random.default_rng(9).normal(size=(40, 4))
    fitted = semantic.SemanticRouterBaseline().fit(NAMES, UTTERANCES, threshold=threshold)
    assert fitted.best(requests).above(threshold).tolist() == fitted.choose(requests).tolist()


def test_a_score_is_the_mean_cosine_of_the_routes_best_utterances() -> None:
    baseline = semantic.SemanticRouterBaseline(top_k=3).fit(NAMES, UTTERANCES)
    cosines = UTTERANCES["pilot"] @ AXES[1] / np.linalg.norm(UTTERANCES["pilot"], axis=1)
    assert baseline.best(AXES[[1]]).score[0] == pytest.approx(np.sort(cosines)[-3:].mean())


def test_an_adapter_without_utterances_is_refused() -> None:
    with pytest.raises(InputError, match="no utterances for judge"):
        semantic.SemanticRouterBaseline().fit(NAMES, {**UTTERANCES, "judge": np.zeros((0, 4))})


def test_the_routing_benchmark_chooses_as_the_package_does() -> None:
    requests = np.random.default_rng(9).normal(size=(40, 4))
    requests /= np.linalg.norm(requests, axis=1, keepdims=True)
    utterances = np.concatenate([UTTERANCES[name] for name in NAMES])
    utterances /= np.linalg.norm(utterances, axis=1, keepdims=True)
    best = semantic.SemanticRouterBaseline().fit(NAMES, UTTERANCES).best(requests)
    means = route_means(requests, utterances, np.repeat(np.arange(3), 8), 3)
    assert means.argmax(axis=1).tolist() == best.adapter.tolist()
    np.testing.assert_allclose(means.max(axis=1), best.score)
