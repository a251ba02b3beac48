"""The routers whose decisions are timed: they decide, whatever the number of adapters."""

from pathlib import Path

import numpy as np
import pytest
from latency import routers as latency_routers
from traitroute.router import Router, RoutingProfile

TOPICS = {
    "sums": "add these numbers for me",
    "reviews": "is this review good",
    "code": "write a python function",
}
ROWS = {name: [f"{text} {i}" for i in range(30)] for name, text in TOPICS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, latency_routers.FITTED, 40])
def test_a_profile_of_any_size_is_stored_and_routes(size: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    [contender] = latency_routers.our_contenders(ROWS, [size], tmp_path, rng)
    assert contender.start is not None
    profile = RoutingProfile.from_bytes(contender.start.read_bytes())
    assert len(profile.adapters) == size
    joined = np.flatnonzero(profile.residuals.any(axis=1))
    assert joined.tolist() == list(range(latency_routers.FITTED, size))
    decision = Router(profile).route("is this review good 7", ranked=size)
    assert len(decision.ranking) == size
    assert decision == Router(profile).route("is this review good 7", ranked=size)
