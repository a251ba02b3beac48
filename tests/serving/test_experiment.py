"""Who is held back and who tries the second choice: by a keyed draw, within what a decision allows."""

import subprocess
import sys
from typing import Any

import pytest
from traitroute.adapters import FeedbackSource, InputError, Registry
from traitroute.router import Affinity, RoutingDecision
from traitroute.serving.experiment import BASE_MODEL, Draw, Experiment, conversation_of, second_choice

KEY = b"of the registry"
TURNS = [conversation_of(session=None, first_turn=f"question {i}", client=b"") for i in range(4000)]


def decision(adapter: str | None, *ranked: tuple[str, float, float]) -> RoutingDecision:
    """A decision with ranked (adapter, gain, margin), of which `adapter` is chosen."""
    ranking = tuple(Affinity(adapter=a, gain=gain, low=gain - by, high=gain + by) for a, gain, by in ranked)
    chosen = next((a for a in ranking if a.adapter == adapter), None)
    base = RoutingDecision.base("because", profile_version=1)
    found = {"adapter": adapter, "gain": chosen.gain, "interval": (chosen.low, chosen.high)} if chosen else {}
    return base.model_copy(update={"ranking": ranking, **found})


CLOSE = decision("chef", ("chef", 0.3, 0.2), ("cook", 0.2, 0.2), ("idle", 0.0, 0.2))


def sides(experiment: Experiment, key: bytes = KEY) -> list[str]:
    return [experiment.draw(key, turn).side for turn in TURNS]


def test_the_shares_drawn_are_those_asked_for() -> None:
    drawn = sides(Experiment(holdback=0.1, explore=0.2))
    # Five standard deviations of a binomial of 4,000: 0.0237 at 0.1.
    assert abs(drawn.count("control") / 4000 - 0.1) < 0.0237
    assert abs(drawn.count("second") / 4000 - 0.9 * 0.2) < 0.0304


def test_nobody_is_drawn_where_nothing_is_asked_for() -> None:
    assert set(sides(Experiment())) == {"auto"}


def test_another_process_draws_the_same_and_another_registry_does_not() -> None:
    code = (
        "from traitroute.serving.experiment import Experiment, conversation_of\n"
        "experiment = Experiment(holdback=0.3, explore=0.2)\n"
        "turns = (conversation_of(session=None, first_turn=f'question {i}', client=b'') for i in range(200))\n"
        "print(*(experiment.draw(b'of the registry', turn).side for turn in turns))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    experiment = Experiment(holdback=0.3, explore=0.2)
    assert run.stdout.split() == sides(experiment)[:200]
    assert sides(experiment, b"of another")[:200] != sides(experiment)[:200]


def test_a_larger_share_keeps_whom_a_smaller_one_drew() -> None:
    few, many = (sides(Experiment(holdback=share)) for share in (0.05, 0.2))
    assert {i for i, side in enumerate(few) if side == "control"} < {
        i for i, side in enumerate(many) if side == "control"
    }


def test_a_conversation_is_its_session_else_its_first_turn_and_key() -> None:
    def identity(session: str | None = None, first_turn: str = "a", client: bytes = b"1") -> bytes:
        return conversation_of(session=session, first_turn=first_turn, client=client)

    assert identity("s") == identity("s", "b", b"2")
    assert len({identity(), identity(first_turn="b"), identity(client=b"2"), identity("s"), identity("t")}) == 5
    assert identity(first_turn="\ud83d")


def test_a_hash_names_the_conversation_and_says_nothing_of_its_side() -> None:
    draws = [Experiment(holdback=0.5).draw(KEY, turn) for turn in TURNS]
    assert len({draw.conversation for draw in draws}) == len(TURNS)
    assert {len(draw.conversation) for draw in draws} == {11}
    opening = [draw.conversation[0] for draw in draws if draw.side == "control"]
    assert len(set(opening)) > 50


@pytest.mark.parametrize(
    ("made", "second"),
    [
        (CLOSE, "cook"),
        (decision("chef", ("chef", 0.3, 0.04), ("cook", 0.2, 0.04)), None),
        (decision("chef", ("chef", 0.3, 0.2)), None),
        (decision(None, ("cook", 0.1, 0.2)), "cook"),
        (decision(None, ("cook", -0.1, 0.2)), None),
        (decision(None, ("cook", -0.3, 0.2)), None),
        (decision(None), None),
        (RoutingDecision.base("no-text", profile_version=1), None),
    ],
)
def test_the_second_choice_overlaps_the_first_and_is_expected_to_gain(made: RoutingDecision, second: Any) -> None:
    found = second_choice(made)
    assert (found and found.adapter) == second


def test_base_is_the_second_choice_where_the_first_is_not_sure_to_help() -> None:
    unsure = decision("chef", ("chef", 0.1, 0.2), ("cook", -0.1, 0.2))
    assert second_choice(unsure) == BASE_MODEL


def test_a_gain_that_the_request_asks_for_binds_the_second_choice_too() -> None:
    assert second_choice(CLOSE, least_gain=-0.1) is not None
    assert second_choice(CLOSE, least_gain=0.05) is None


@pytest.mark.parametrize(
    ("made", "side", "adapter", "arm", "propensity"),
    [
        (CLOSE, "auto", "chef", "auto", 0.9 * 0.8),
        (CLOSE, "second", "cook", "second", 0.9 * 0.2),
        (CLOSE, "control", None, "control", 0.1),
        (decision("chef", ("chef", 0.3, 0.2)), "second", "chef", "auto", 0.9),
        (decision(None), "control", None, "control", 1.0),
        (decision(None), "auto", None, "auto", 1.0),
        (decision(None, ("cook", 0.1, 0.2)), "control", None, "control", 0.1 + 0.9 * 0.8),
        (decision(None, ("cook", 0.1, 0.2)), "second", "cook", "second", 0.9 * 0.2),
    ],
)
def test_the_propensity_is_that_of_the_answerer_however_it_came_to_answer(
    made: RoutingDecision, side: Any, adapter: str | None, arm: str, propensity: float
) -> None:
    drawn = Experiment(holdback=0.1, explore=0.2).assign(Draw(side, "c"), made)
    assert (drawn.answerer.adapter, drawn.arm, drawn.conversation) == (adapter, arm, "c")
    assert drawn.propensity == pytest.approx(propensity)


def test_propensities_are_those_of_the_draws() -> None:
    experiment = Experiment(holdback=0.3, explore=0.2)
    drawn = [experiment.assign(experiment.draw(KEY, turn), CLOSE) for turn in TURNS]
    for adapter in ("chef", "cook", None):
        stated = {d.propensity for d in drawn if d.answerer.adapter == adapter}
        share = sum(d.answerer.adapter == adapter for d in drawn) / len(TURNS)
        # Five standard deviations of a binomial.
        assert len(stated) == 1
        assert share == pytest.approx(stated.pop(), abs=0.04)


def test_an_experiment_is_what_the_operator_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Experiment.from_environment() == Experiment()
    monkeypatch.setenv("TRAITROUTE_HOLDBACK", " 0.02 ")
    monkeypatch.setenv("TRAITROUTE_EXPLORE", "0.2")
    monkeypatch.setenv("TRAITROUTE_OUTCOMES", "format, answered,")
    both = frozenset({FeedbackSource.FORMAT, FeedbackSource.ANSWERED})
    assert Experiment.from_environment() == Experiment(0.02, 0.2, both)


@pytest.mark.parametrize(
    ("variable", "wrong", "cure"),
    [
        *(("TRAITROUTE_HOLDBACK", wrong, "from 0 (off) to 0.5") for wrong in ("2%", "-0.1", "0.51", "nan", "inf")),
        *(("TRAITROUTE_EXPLORE", wrong, "from 0 (off) to 0.2") for wrong in ("yes", "0.3")),
        ("TRAITROUTE_OUTCOMES", "format,user", "format, answered, judge"),
        ("TRAITROUTE_JUDGE_SHARE", "1%", "from 0 (off) to 1"),
        ("TRAITROUTE_JUDGE_MODEL", " ", "which model grades"),
        ("TRAITROUTE_JUDGE_URL", "judge:8000", "http"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, wrong: str, cure: str
) -> None:
    if "JUDGE" in variable:
        for name, value in (("OUTCOMES", "judge"), ("JUDGE_URL", "http://judge:8000/v1"), ("JUDGE_MODEL", "strict")):
            monkeypatch.setenv(f"TRAITROUTE_{name}", value)
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(InputError, match=variable if variable != "TRAITROUTE_JUDGE_URL" else "judge:8000") as refused:
        Experiment.from_environment()
    assert cure in str(refused.value)


@pytest.mark.slow
def test_no_server_starts_with_a_share_that_cannot_be(
    open_server: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAITROUTE_HOLDBACK", "2")
    with pytest.raises(InputError, match="TRAITROUTE_HOLDBACK is '2'"):
        open_server(registry)
