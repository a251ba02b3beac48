"""The candidate that novel requests are drawn from is the one that is suggested."""

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from traitroute.adapters import DemandWindow
from traitroute.router import FitRequests, RoutingProfile, fit_profile
from traitroute.serving.traffic.suggestion import groups_of, losses_of, novelty_of, suggestions

WORDS = {
    "cooking": "simmer the onion soup with butter garlic thyme then bake bread in a hot oven",
    "law": "contract clause grants tenant notice before court hears appeal on lease and damages",
    "space": "rocket orbit around mars needs fuel thrust telescope sees moon crater and comet",
    "garden": "plant tomato seeds in warm soil water roses prune hedge and compost the leaves",
}
SOURCES = ("space", "garden")
"""What the features know of, beside the two tasks that were profiled."""


def texts(task: str, count: int, seed: int = 0) -> list[str]:
    draw = random.Random(f"{task} {seed}")
    return [" ".join(draw.choices(WORDS[task].split(), k=12)) for _ in range(count)]


@pytest.fixture(scope="module")
def profile() -> RoutingProfile:
    from traitroute.router import TrainingRows

    tasks = [t for t in ("cooking", "law") for _ in range(30)]
    gains = np.array([[1.0, 0.0] if t == "cooking" else [0.0, 1.0] for t in tasks])
    sources = [TrainingRows.read(texts(s, 30), ["yes"] * 30) for s in SOURCES]
    requests = FitRequests([x for t in ("cooking", "law") for x in texts(t, 30)], tasks, gains, sources=sources)
    return fit_profile(["a", "b"], requests, np.array([[1.0], [-1.0]]), n_traits=1)


def features(profile: RoutingProfile, task: str, count: int, seed: int) -> NDArray[np.float64]:
    return profile.features.transform(texts(task, count, seed))


def test_the_task_that_novel_requests_are_of_is_suggested_first(profile: RoutingProfile) -> None:
    novel = np.concatenate([features(profile, "space", 30, 5), features(profile, "garden", 10, 5)])
    candidates = {t: features(profile, t, 20, 9) for t in ("garden", "space")}
    found = suggestions(novel, candidates, profile)
    assert [each.task for each in found] == ["space", "garden"]
    assert found[0].share > 0.6


def test_a_task_unlike_the_requests_is_not_suggested(profile: RoutingProfile) -> None:
    candidates = {"garden": features(profile, "garden", 20, 9)}
    assert suggestions(features(profile, "space", 30, 5), candidates, profile) == []


def test_requests_that_are_alike_make_a_group(profile: RoutingProfile) -> None:
    novel = np.concatenate([features(profile, "space", 30, 5), features(profile, "garden", 10, 5)])
    assert [round(g.share, 2) for g in groups_of(novel, profile)] == [0.75, 0.25]
    assert groups_of(novel[:0], profile) == []


def window(requests: int, novel: int) -> DemandWindow:
    return DemandWindow(profile_version=1, requests=requests, novel=novel, features=DemandWindow.pack([]))


def test_more_novel_requests_than_before_are_told_from_noise() -> None:
    rising = novelty_of([window(500, 50), window(500, 100)])
    assert (rising.requests, rising.novel, rising.earlier, rising.later) == (1000, 150, 0.1, 0.2)
    assert rising.p < 0.001
    assert novelty_of([window(50, 5), window(50, 6)]).p > 0.05
    assert novelty_of([window(50, 5)]).p == 1.0


def test_rewards_that_fall_are_told_from_noise() -> None:
    draw = np.random.default_rng(0)
    rewards = np.concatenate([draw.random(100) * 0.5 + 0.5, draw.random(100) * 0.5])
    falling = losses_of((rewards - 0.5).tolist())
    assert falling is not None
    assert falling.p < 0.001
    even = losses_of((draw.permutation(rewards) - 0.5).tolist())
    assert even is not None
    assert even.p > 0.05
    assert losses_of([0.5] * 30) is None
