"""A small routing profile fitted on made-up texts: two adapters help unlike topics, a third does nothing."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import FitRequests, Router, RoutingProfile, fit_profile

ADAPTERS = ("chef", "pilot", "idle")
TOPICS = {
    "cooking": "simmer the onion soup with butter garlic thyme then bake bread in a hot oven",
    "garden": "plant tomato seeds in warm soil water roses prune hedge and compost the leaves",
    "space": "rocket orbit around mars needs fuel thrust telescope sees moon crater and comet",
    "law": "contract clause grants tenant notice before court hears appeal on lease and damages",
}
GAINS = {"cooking": (1, -1, 0), "garden": (1, -1, 0), "space": (-1, 1, 0), "law": (-1, -1, 0)}
HELPER = {"cooking": "chef", "garden": "chef", "space": "pilot", "law": None}


def make_texts(topic: str, count: int, *, seed: int) -> list[str]:
    """Requests of eight to sixteen words drawn from a topic's vocabulary."""
    draw = random.Random(f"{topic} {seed}")
    words = TOPICS[topic].split()
    return [f"please {' '.join(draw.choices(words, k=draw.randint(8, 16)))}" for _ in range(count)]


def measured(topics: Sequence[str], *, seed: int = 0) -> FitRequests:
    """Forty requests a topic; an adapter shows its gain on four of five."""
    texts = [t for topic in topics for t in make_texts(topic, 40, seed=seed)]
    tasks = [topic for topic in topics for _ in range(40)]
    shown = np.random.default_rng(seed).random((len(tasks), 1)) < 0.8
    return FitRequests(texts, tasks, np.array([GAINS[t] for t in tasks]) * shown * 1.0)


def fit(requests: FitRequests) -> RoutingProfile:
    """Fit traits and routing to measured requests, as profiling does."""
    tasks = list(dict.fromkeys(requests.tasks))
    rows = [np.array(requests.tasks) == t for t in tasks]
    gains = np.stack([requests.gains[r].mean(axis=0) for r in rows], axis=1)
    traits = TraitSpace(n_permutations=50).fit(gains)
    return fit_profile(ADAPTERS, requests, traits.transform(gains), n_traits=traits.n_traits_)


@pytest.fixture(scope="session")
def profile() -> RoutingProfile:
    """A profile that the tests of this folder share; it is never written to."""
    return fit(measured(list(TOPICS)))


@pytest.fixture
def refit() -> Callable[[], RoutingProfile]:
    """Fit the shared profile again from the same requests."""
    return lambda: fit(measured(list(TOPICS)))


@pytest.fixture
def router(profile: RoutingProfile) -> Router:
    """A router over the shared profile."""
    return Router(profile)


@pytest.fixture
def topic_texts() -> Callable[..., list[str]]:
    """Make requests of a topic: `topic_texts(topic, count, seed=...)`."""
    return make_texts


@pytest.fixture
def helper() -> dict[str, str | None]:
    """The adapter that helps each topic."""
    return HELPER
