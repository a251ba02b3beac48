"""A canary is compared with who would have answered, and promoted or rolled back where its figures are sure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from traitroute.adapters import ConflictError, FeedbackSource, Registry
from traitroute.serving.api_routes import api_routes
from traitroute.serving.lift.canary import CanaryFigures, read_figures, take_step, take_steps
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

from ...simulated_outcomes import entry_of, feedback_on

NOW = datetime.now(UTC) + timedelta(days=1)  # after all that happens while the tests run
LATER = NOW + timedelta(days=1)


def token(n: int, *, given: bool, share: float, **parts: object) -> DecisionToken:
    """The token of conversation n, which chef would win; pilot answers where it was not drawn."""
    made = NOW + timedelta(seconds=n)
    return replace(entry_of("chef", "pilot", n, given=given, share=share, made=made), **parts)


def report(
    registry: Registry, tokens: Sequence[DecisionToken], rewards: Sequence[float], reporter: str | None = None
) -> None:
    rows = map(feedback_on, tokens, rewards)
    registry.put_feedback(*(row.model_copy(update={"reporter": reporter}) for row in rows))


def month(registry: Registry, gain: float, share: float = 0.1, count: int = 6000, first: int = 0) -> None:
    """Conversations of which chef answers `share`, and gets `gain` more right than pilot's half."""
    rng = np.random.default_rng(first)
    given = rng.random(count) < share
    right = rng.random(count) < np.where(given, 0.5 + gain, 0.5)
    tokens = [token(first + i, given=bool(g), share=share) for i, g in enumerate(given)]
    report(registry, tokens, right.astype(float).tolist())


@pytest.fixture
def entered(registry: Registry) -> Registry:
    """A registry in which chef gets a tenth of what it would win."""
    registry.set_canary("chef", 0.1, why="entered")
    return registry


def figures(registry: Registry, margin: float = 0.05) -> CanaryFigures:
    return read_figures(registry, registry.adapter("chef"), LATER, margin=margin)


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, "promote"), (-0.3, "roll back"), (0.0, "wait")])
def test_what_is_surely_better_is_promoted_and_what_is_surely_worse_is_not(
    entered: Registry, gain: float, verdict: str
) -> None:
    month(entered, gain)
    found = figures(entered)
    assert found.estimate is not None
    assert found.estimate.low < gain < found.estimate.high
    assert found.verdict == verdict
    assert (found.conversations, found.share, found.next_share) == (6000, 0.1, 1.0)
    assert found.reward_canary == pytest.approx(0.5 + gain, abs=0.06)
    assert found.reward_incumbent == pytest.approx(0.5, abs=0.03)


def test_one_that_is_as_good_is_promoted_once_its_loss_is_surely_small(entered: Registry) -> None:
    month(entered, 0.0)
    left = figures(entered).days_left
    assert left is not None
    assert figures(entered, margin=0.2).verdict == "promote"
    assert figures(entered, margin=0.2).days_left == 0
    # At a hundredth, the next share is a tenth: what it may lose there counts a tenth.
    entered.set_canary("chef", 0.01)
    month(entered, 0.0, share=0.01, first=10_000)
    found = figures(entered)
    assert (found.next_share, found.verdict) == (0.1, "promote")
    assert found.estimate is not None
    assert found.estimate.low < -0.05


def test_only_conversations_of_this_share_count(entered: Registry) -> None:
    month(entered, -0.3, share=0.01)
    assert figures(entered).conversations == 0
    assert figures(entered).estimate is None
    assert figures(entered).verdict == "wait"


def test_held_back_conversations_count_for_neither_side_and_bias_none(entered: Registry) -> None:
    rng = np.random.default_rng(0)
    tokens, rewards = [], []
    for n in range(6000):
        given, held_back = bool(rng.random() < 0.1), bool(rng.random() < 0.5)
        kept = {"adapter": None, "arm": "control"} if held_back else {}
        tokens.append(token(n, given=given, share=0.1, propensity=0.5, **kept))
        # Base would be always right, and is no side.
        rewards.append(1.0 if held_back else float(rng.random() < (0.7 if given else 0.5)))
    report(entered, tokens, rewards)
    found = figures(entered)
    assert found.estimate is not None
    assert found.estimate.gain == pytest.approx(0.2, abs=0.08)
    assert found.reward_incumbent == pytest.approx(0.5, abs=0.04)


def test_base_as_the_incumbent_counts_though_it_was_held_back(entered: Registry) -> None:
    rng = np.random.default_rng(0)
    tokens, rewards = [], []
    for n in range(6000):
        given, held_back = bool(rng.random() < 0.1), bool(rng.random() < 0.2)
        base = {"adapter": None, "policy": "chef" if given else None, "arm": "control" if held_back else "auto"}
        part = (base | {"propensity": 0.2 if given else 1.0}) if held_back or not given else {"propensity": 0.8}
        tokens.append(token(n, given=given, share=0.1, **part))
        rewards.append(float(rng.random() < (0.7 if tokens[-1].adapter else 0.4)))
    report(entered, tokens, rewards)
    found = figures(entered)
    assert found.estimate is not None
    assert found.estimate.gain == pytest.approx(0.3, abs=0.08)
    assert found.reward_incumbent == pytest.approx(0.4, abs=0.03)


def test_where_outcomes_come_from_one_side_more_often_nothing_is_promoted(entered: Registry) -> None:
    rng = np.random.default_rng(0)
    given = rng.random(6000) < 0.5
    tokens = [token(i, given=bool(g), share=0.1) for i, g in enumerate(given)]
    report(entered, tokens, [0.9 if g else 0.1 for g in given])
    found = figures(entered)
    assert found.verdict == "wait"
    assert any("10.0% were drawn" in note for note in found.notes)


@pytest.mark.parametrize(("others", "verdict"), [(0.3, "promote"), (-0.3, "wait")])
def test_a_flood_from_one_key_promotes_nothing_against_the_others(
    entered: Registry, others: float, verdict: str
) -> None:
    liar, honest = "a" * 32, "b" * 32
    for reporter, gain, count, first in ((liar, 0.5, 6000, 0), (honest, others, 1000, 10_000)):
        rng = np.random.default_rng(first)
        given = rng.random(count) < 0.1
        right = rng.random(count) < np.where(given, 0.5 + gain, 0.5)
        tokens = [token(first + i, given=bool(g), share=0.1) for i, g in enumerate(given)]
        report(entered, tokens, right.astype(float).tolist(), reporter)
    found = figures(entered)
    assert found.estimate is not None
    assert found.estimate.low > 0
    assert found.verdict == verdict
    assert any("one API key reported 86% of the conversations" in note for note in found.notes) == (verdict == "wait")


def test_a_step_is_taken_once_and_kept_with_its_figures(entered: Registry) -> None:
    month(entered, -0.3)
    read = entered.adapter("chef")
    [taken] = take_steps(entered, LATER)
    assert taken.verdict == "roll back"
    assert entered.adapter("chef").canary == 0
    step = entered.canary_steps("chef")[-1]
    assert (step.why, step.share) == ("rolled back", 0.0)
    assert step.figures is not None
    assert step.figures["estimate"]["high"] < 0
    with pytest.raises(ConflictError):
        take_step(entered, read, taken)
    assert take_steps(entered, LATER) == []


def test_a_good_one_goes_all_the_way(entered: Registry) -> None:
    entered.set_canary("chef", 0.01)
    month(entered, 0.3, share=0.01, count=8000)
    take_steps(entered, LATER)
    assert entered.adapter("chef").canary == 0.1
    assert take_steps(entered, LATER) == []
    month(entered, 0.3, first=20_000)
    take_steps(entered, LATER)
    assert entered.adapter("chef").canary is None
    assert [step.why for step in entered.canary_steps("chef")] == ["entered", "by hand", "promoted", "promoted"]


def test_outcomes_of_another_source_are_another_comparison(entered: Registry) -> None:
    month(entered, -0.3)
    found = read_figures(entered, entered.adapter("chef"), LATER, source=FeedbackSource.CHECKER)
    assert (found.conversations, found.verdict) == (0, "wait")


def test_the_figures_are_answered_over_http(entered: Registry) -> None:
    month(entered, 0.1, count=300)
    state = ServerState()
    state.snapshot = RegistrySnapshot(location=entered.location)
    told = TestClient(Starlette(routes=api_routes(state))).get("/v1/canaries").json()
    assert [(each["adapter"], each["share"], each["verdict"]) for each in told["data"]] == [("chef", 0.1, "wait")]
    assert [(step["adapter"], step["why"], step["share"]) for step in told["steps"]] == [("chef", "entered", 0.1)]
