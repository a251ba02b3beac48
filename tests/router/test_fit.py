"""Fitting a routing profile from per-example gains."""

from typing import Any

import numpy as np
import pytest
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import FitRequests, Router, RoutingProfile, fit_profile
from traitroute.router.fit import to_demand, to_gains
from traitroute.router.guard import LEAST_Z


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


def test_new_tasks_are_less_certain_than_profiled_ones(profile: RoutingProfile) -> None:
    assert profile.error_known < profile.error_new
    assert profile.novelty.known < profile.novelty.new


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


@pytest.mark.slow
@pytest.mark.parametrize(("data_sets", "few"), [(18, True), (19, False)])
def test_the_margin_holds_of_new_kinds_alone_once_enough_data_sets_were_left_out(data_sets: int, few: bool) -> None:
    random = np.random.default_rng(0)
    tasks = [f"{kind} {i}" for i in range(data_sets) for kind in ("main", "probe")]
    texts = [f"{task} asks for number {n} of subject{task[-2:]}" for task in tasks for n in range(4)]
    each = [task for task in tasks for _ in range(4)]
    gains = random.choice([-1.0, 0.0, 1.0], size=(len(texts), 3))
    requests = FitRequests(texts, each, gains, groups=[task.split()[1] for task in each])
    scores = np.array([[1.0, 0.2], [-1.0, 0.1], [0.0, -0.3]])
    fitted = fit_profile(["x", "y", "z"], requests, scores, n_traits=1)
    assert fitted.z_known == (fitted.z_new if few else 0.0)
    assert fitted.z_new >= (LEAST_Z if few else 0.0)
    assert RoutingProfile.from_bytes(fitted.to_bytes()).z_known == fitted.z_known
    known, new = np.array(0.0), np.array(1.0)
    assert fitted.margin(new) == fitted.z_new * fitted.error_new
    assert fitted.margin(known) == (fitted.z_new * fitted.error_known if few else 0.0)
