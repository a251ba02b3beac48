"""Fitting a routing profile from per-example gains."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import FitRequests, Router, RoutingProfile, fit_profile
from traitroute.router.decision import NOVEL
from traitroute.router.fit import to_demand
from traitroute.router.guard import FEW_GROUPS_Z, LEAST_CARE

Array = NDArray[np.float64]


def to_gains(demand: Array, trait_scores: Array) -> Array:
    """The gains that a profile predicts of demands."""
    return demand[:, :1] + demand[:, 1:] @ trait_scores.T


def test_demand_of_full_rank_loses_nothing() -> None:
    random = np.random.default_rng(0)
    gains = random.choice([-1.0, 0.0, 1.0], size=(50, 6))
    scores = TraitSpace(n_permutations=10).fit_transform(random.normal(size=(6, 8)))
    assert scores.shape == (6, 5)
    np.testing.assert_allclose(to_gains(to_demand(gains, scores), scores), gains, atol=1e-9)


def test_demand_of_lower_rank_keeps_the_mean_gain() -> None:
    random = np.random.default_rng(0)
    gains = random.normal(size=(50, 6))
    scores = TraitSpace(n_permutations=10).fit_transform(random.normal(size=(6, 8)))[:, :2]
    kept = to_gains(to_demand(gains, scores), scores)
    np.testing.assert_allclose(kept.mean(axis=1), gains.mean(axis=1))


def test_the_less_is_known_the_larger_is_the_error(profile: RoutingProfile) -> None:
    nothing, half, all_ = profile.error(np.array([1.0, 0.5, 0.0]), np.full(3, 0.5))
    assert profile.error_unknown == pytest.approx(nothing)
    assert nothing > half > all_ == 0


def test_profile_says_what_it_was_fitted_on(profile: RoutingProfile) -> None:
    assert profile.tasks == ("cooking", "garden", "space", "law")
    assert profile.fitted_on == 160
    assert 1 <= profile.n_traits <= profile.trait_scores.shape[1]


@pytest.mark.slow
def test_fitting_twice_gives_the_same_bytes(profile: RoutingProfile, refit: Any) -> None:
    assert refit().to_bytes() == profile.to_bytes()


def test_number_of_components_can_be_given(profile: RoutingProfile) -> None:
    requests = FitRequests(["bake bread", "fly away"] * 8, ["a", "b"] * 8, np.eye(3)[[0, 1] * 8])
    scores = np.array([[1.0, 0.2], [-1.0, 0.1], [0.0, -0.3]])
    for rank in (1, 2):
        fitted = fit_profile(profile.adapters, requests, scores, n_traits=1, rank=rank)
        assert fitted.trait_scores.shape == (3, rank)


@pytest.mark.parametrize("tasks", [["a", "b", "c"], ["a", "a", "b", "b"]])
def test_handful_of_requests_is_enough(tasks: list[str]) -> None:
    gains = np.eye(len(tasks))[:, :2]
    requests = FitRequests([f"word{i} and more" for i in range(len(tasks))], tasks, gains)
    fitted = fit_profile(["x", "y"], requests, np.array([[1.0], [-1.0]]), n_traits=1)
    assert np.isfinite(Router(fitted).route("word0 and more").ranking[0].gain)


def test_adapters_that_only_harm_are_kept_from_answering_where_nothing_else_is_known() -> None:
    random = np.random.default_rng(0)
    tasks = [f"kind{i}" for i in range(8) for _ in range(20)]
    texts = [f"{task} asks for number {i}" for i, task in enumerate(tasks)]
    gains = random.choice([-1.0, 0.0], size=(len(texts), 2))
    fitted = fit_profile(["x", "y"], FitRequests(texts, tasks, gains), np.array([[1.0], [-1.0]]), n_traits=1)
    assert Router(fitted).route("kind3 asks for number 7").adapter is None
    assert RoutingProfile.from_bytes(fitted.to_bytes()).z == fitted.z


def test_where_nothing_can_be_held_out_a_margin_is_kept() -> None:
    requests = FitRequests(["one request", "another"], ["only"] * 2, np.ones((2, 2)))
    assert fit_profile(["x", "y"], requests, np.array([[1.0], [-1.0]]), n_traits=1).z == FEW_GROUPS_Z


def test_there_is_less_to_lose_where_the_base_model_is_hardly_ever_right(profile: RoutingProfile) -> None:
    new, error = np.array(1.0), profile.error_unknown
    assert profile.error(new, np.array(0.5)) == pytest.approx(error)
    assert profile.error(new, np.array(0.02)) < 0.3 * error
    assert profile.error(new, np.array(0.0)) == LEAST_CARE * error


def test_kinds_of_which_nothing_was_measured_before_get_what_is_known_in_general() -> None:
    # One adapter gains on each of a dozen unlike kinds, the other on none.
    words = ["apple", "brick", "cloud", "dance", "eagle", "flute", "grape", "house", "igloo", "jelly", "knife", "lemon"]
    texts = [f"{word} {i} {word}{i}" for word in words for i in range(6)]
    tasks = [word for word in words for _ in range(6)]
    gains = np.tile([0.6, -0.2], (len(texts), 1))
    requests = FitRequests(texts, tasks, gains, base=np.full(len(texts), 0.2))
    fitted = fit_profile(["helps", "harms"], requests, np.array([[1.0], [-1.0]]), n_traits=1)
    decision = Router(fitted).route("whatever else zebra crossing violin")
    assert decision.novelty > NOVEL
    assert decision.adapter == "helps"
