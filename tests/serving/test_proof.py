"""A server's proof that it applies an adapter: what counts as one, what does not, and what a failure proves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from traitroute.adapters import Adapter, AdapterState
from traitroute.serving import proof as proofs
from traitroute.serving.engines.probe import (
    FLOOR,
    TEXTS,
    Distribution,
    Effect,
    ProbeError,
    difference,
    within_vocabulary,
)
from traitroute.serving.proof import Proof, Prover, Verdict

PENDING, READY = AdapterState.PENDING, AdapterState.READY


def adapter(state: AdapterState = PENDING, effect: float | None = None, noise: float = 0.0) -> Adapter:
    return Adapter(
        name="code",
        base_model="tiny",
        base_digest="b" * 64,
        weights_digest="1" * 64,
        rank=2,
        target_modules=("q_proj",),
        state=state,
        effect=effect,
        noise=None if effect is None else noise,
    )


def test_the_difference_is_the_largest_of_any_token_of_any_text() -> None:
    one, other = [{1: -0.5, 2: -1.0}, {1: -0.5}], [{1: -0.75, 2: -3.0}, {1: -0.5}]
    assert difference(one, other) == difference(other, one) == 2.0


def test_a_token_that_one_side_lists_is_no_likelier_on_the_other_than_its_last() -> None:
    assert difference([{1: -0.1, 2: -3.0}], [{1: -0.1, 3: -2.0}]) == 1.0
    assert difference([{1: -0.1, 2: -3.0}], [{1: -0.1, 3: -3.0}]) == 0.0


@pytest.mark.parametrize("empty", [{}, {1: float("nan")}, {1: float("-inf")}])
def test_numbers_that_are_none_are_no_reading(empty: Distribution) -> None:
    with pytest.raises(ProbeError, match="no finite"):
        difference([empty], [{1: -0.1}])


def test_a_change_counts_from_three_times_the_noise_and_never_below_the_floor() -> None:
    assert Effect(0.31, 0.1).is_shown
    assert not Effect(0.29, 0.1).is_shown
    assert Effect(2 * FLOOR, 0.0).is_shown
    assert not Effect(FLOOR / 2, 0.0).is_shown


def test_no_token_of_the_probe_is_beyond_a_models_vocabulary() -> None:
    assert within_vocabulary([3, 64, 70, 64], 64) == [3, 2, 3, 4]


@pytest.mark.parametrize(
    ("of", "found", "verdict"),
    [
        (adapter(), Effect(1.0, 0.1), Verdict.APPLIED),
        (adapter(), Effect(0.1, 0.1), Verdict.IDLE),
        (adapter(), "no answer in 20 s", Verdict.UNPROVEN),
        # Measured, and the probe showed it clearly: what shows nothing here is not applied here.
        (adapter(READY, effect=9.0), Effect(0.1, 0.1), Verdict.IDLE),
        # Measured, but the probe is blind to it, or nearly so: measuring is the better evidence.
        (adapter(READY, effect=0.0), Effect(0.0, 0.1), Verdict.UNPROVEN),
        (adapter(READY, effect=1.0), Effect(0.1, 0.1), Verdict.UNPROVEN),
        (adapter(READY), Effect(0.1, 0.1), Verdict.UNPROVEN),
    ],
)
def test_the_better_evidence_wins(of: Adapter, found: Effect | str, verdict: Verdict) -> None:
    assert Proof.of(of, found).verdict is verdict


Ask = Callable[[str | None, str], Awaitable[Distribution]]


def read(ask: Ask, *models: str) -> list[Effect | str]:
    async def run() -> list[Effect | str]:
        prover: Prover[str] = Prover(ask)
        return list(await asyncio.gather(*(prover.read(model) for model in models)))

    return asyncio.run(run())


def test_base_is_read_alone_once_and_beside_every_adapter() -> None:
    asked: list[str | None] = []

    async def ask(model: str | None, text: str) -> Distribution:
        asked.append(model)
        await asyncio.sleep(0)
        return {1: -1.0 if model else -3.0}

    assert read(ask, "code", "cook") == [Effect(2.0, 0.0)] * 2
    assert (asked.count(None), asked.count("code")) == (3 * len(TEXTS), len(TEXTS))


def test_what_traffic_does_to_base_beside_the_adapter_is_noise() -> None:
    calls: list[None] = []

    async def ask(model: str | None, text: str) -> Distribution:
        if model is None:
            calls.append(None)
        return {1: -1.0 if len(calls) <= len(TEXTS) else -1.5}

    [found] = read(ask, "code")
    assert found == Effect(0.0, 0.5)


@pytest.mark.parametrize("error", [ProbeError("no log-probabilities"), RuntimeError("/secret/path"), ConnectionError()])
def test_an_engine_that_fails_proves_nothing_and_shows_no_path(error: Exception) -> None:
    async def ask(model: str | None, text: str) -> Distribution:
        raise error

    [found] = read(ask, "code")
    assert found in ("no log-probabilities", "RuntimeError", "ConnectionError")


def test_an_engine_that_does_not_answer_is_left_and_its_requests_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "PROBE_S", 0.05)
    cancelled: list[Any] = []

    async def ask(model: str | None, text: str) -> Distribution:
        try:
            await asyncio.sleep(60 if model else 0)
        except asyncio.CancelledError:
            cancelled.append(model)
            raise
        return {1: -1.0}

    assert read(ask, "code") == ["no answer in 0.05 s"]
    assert cancelled == ["code"] * len(TEXTS)
