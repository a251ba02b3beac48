"""Everyday requests are told from tasks, and cost adapters what they lose there."""

from collections import Counter
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
from traitroute.router import Router, RoutingProfile
from traitroute.router.everyday import (
    EXPECTED,
    EXPECTED_BY_FEW,
    LOSS,
    OtherTasks,
    chance,
    checksum,
    everyday_requests,
    expected_share,
    fit_everyday,
)
from traitroute.router.meaning import packaged_encoder
from traitroute.router.request import tokens_of

from .conftest import TOPICS, fit, measured

NEVER_SEEN = (
    "Who painted the Mona Lisa?",
    "Tell me a joke about cats.",
    "Hello, how are you today?",
    "How do I boil an egg?",
)

STRANGE_TASK = (
    "Premise: Two men are playing chess in the park. Hypothesis: Nobody is outside. Does the premise entail the "
    "hypothesis? Answer with entailment, neutral or contradiction."
)


def test_the_requests_that_ship_are_many_of_each_sort_and_none_comes_twice() -> None:
    requests = everyday_requests()
    assert set(Counter(each.sort for each in requests).values()) == {18}
    assert len({each.text for each in requests}) == len(requests) >= 100
    assert all(word.strip() for each in requests for word in each.accepted)


def test_they_are_told_from_what_was_profiled(profile: RoutingProfile, topic_texts: Any) -> None:
    asked = profile.predict_many([*NEVER_SEEN, *topic_texts("space", 4, seed=7)]).everyday
    assert asked[: len(NEVER_SEEN)].min() > 0.05 > 0.02 > asked[len(NEVER_SEEN) :].max()
    assert np.median(asked[: len(NEVER_SEEN)]) > 0.5


def test_a_task_like_which_nothing_was_profiled_is_none_of_them(profile: RoutingProfile) -> None:
    alone = fit(replace(measured(list(TOPICS)), others=OtherTasks((), np.zeros(0, np.uint32))))
    told, taken = (float(each.predict(STRANGE_TASK).everyday) for each in (profile, alone))
    assert told < 0.02 < 0.2 < taken


def test_other_peoples_tasks_ship_by_their_tokens() -> None:
    data = (resources.files("traitroute.router") / "other_tasks.safetensors").read_bytes()
    tasks = OtherTasks.packaged()
    _, sizes = np.unique(tasks.groups, return_counts=True)
    assert len(sizes) >= 40 and set(sizes) == {5}
    assert packaged_encoder().digest.encode() in data[:400], "write them anew: benchmarks/everyday.py --write"
    assert tasks.to_bytes() == data


def test_of_other_peoples_tasks_some_groups_can_be_left_out() -> None:
    tokens = tokens_of(STRANGE_TASK)
    tasks = OtherTasks((tokens,) * 3, np.array([checksum(name) for name in "aba"], np.uint32))
    assert len(tasks.less({"b"}).requests) == 2
    assert list(tasks.less({"a", "c"}).groups) == [checksum("b")]


def test_what_a_request_has_of_them_takes_the_gain_away(profile: RoutingProfile) -> None:
    text = NEVER_SEEN[0]
    never, always = (replace(profile, everyday=np.append(0 * profile.everyday[:-1], odds)) for odds in (-40.0, 40.0))
    without = never.predict(text)
    assert float(without.everyday) == pytest.approx(0)
    np.testing.assert_allclose(always.predict(text).gains, -LOSS)
    now = profile.predict(text)
    np.testing.assert_allclose(now.gains, (1 - now.everyday) * without.gains - LOSS * now.everyday, rtol=1e-6)


def test_a_decision_says_so_and_goes_to_base(profile: RoutingProfile) -> None:
    decision = Router(replace(profile, z=0.0)).route(NEVER_SEEN[2])
    assert decision.adapter is None
    assert decision.everyday > 0.5
    assert "an everyday request" in decision.reason
    assert decision.contributions["everyday"] == pytest.approx(-LOSS * decision.everyday)


def test_where_few_groups_are_profiled_more_are_expected() -> None:
    assert expected_share(18) == EXPECTED_BY_FEW > EXPECTED == expected_share(19)


def test_groups_count_alike_and_few_are_expected() -> None:
    random = np.random.default_rng(0)
    everyday, profiled = random.normal(size=(40, 3)), random.normal(size=(300, 3))
    # Nothing tells them apart: what is expected is what is left.
    weights = fit_everyday(everyday, profiled, np.repeat([0, 1], [10, 290]), EXPECTED)
    assert chance(weights, profiled).mean() == pytest.approx(EXPECTED, abs=0.04)
    np.testing.assert_allclose(chance(weights, profiled[:, :1], profiled[:, 1:]), chance(weights, profiled))
