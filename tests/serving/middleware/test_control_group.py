"""A share of conversations is answered by base, or by the second choice, in every server process alike."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from traitroute.router import Affinity, RoutingDecision
from traitroute.serving.experiment import Experiment
from traitroute.serving.http.keys import ApiKeys, KeyCheck
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

QUESTIONS = [f"code {i}" for i in range(60)]


class RankingRouter:
    """Ranks `code` before `cook`, and gives way to constraints."""

    def route(
        self,
        request: str,
        /,
        *,
        among: Collection[str] | None = None,
        least_gain: float | None = None,
        explain: bool = False,
    ) -> RoutingDecision:
        gains = {"code": 0.3, "cook": 0.2}
        ranking = tuple(
            Affinity(adapter=name, gain=gain, low=gain - 0.15, high=gain + 0.15)
            for name, gain in gains.items()
            if among is None or name in among
        )
        best = ranking[0] if ranking and ranking[0].low > (least_gain or 0.0) else None
        base = RoutingDecision.base("base: none is sure to help", profile_version=1)
        if best is None:
            return base.model_copy(update={"ranking": ranking})
        chosen = {"adapter": best.adapter, "gain": best.gain, "interval": (best.low, best.high)}
        return base.model_copy(update={"ranking": ranking, **chosen, "reason": f"{best.adapter}: predicted"})


@pytest.fixture
def trial(state: ServerState, serve: Callable[[ServerState], Any]) -> Callable[..., Any]:
    """Start one more process of a registry's servers."""

    def started(holdback: float = 0.0, explore: float = 0.0, key: bytes = b"secret") -> Any:
        snapshot = replace(state.snapshot, router=RankingRouter(), draw_key=key)
        # No choice comes late on a busy machine.
        return serve(replace(state, experiment=Experiment(holdback, explore), snapshot=snapshot, budget_s=10.0))

    return started


def arms(server: Any, **more: Any) -> list[str]:
    return [server.chat(question, **more).headers["x-traitroute-arm"] for question in QUESTIONS]


def test_two_servers_agree_on_every_conversation(trial: Callable[..., Any]) -> None:
    first, second = (arms(trial(0.3, 0.2)) for _ in range(2))
    assert first == second
    assert set(first) == {"auto", "control", "second"}


def test_who_answers_why_and_how_likely_it_was(trial: Callable[..., Any]) -> None:
    server = trial(0.3, 0.2)
    seen = {}
    for question in QUESTIONS:
        headers = server.chat(question).headers
        seen[headers["x-traitroute-arm"]] = tuple(
            headers[f"x-traitroute-{part}"] for part in ("adapter", "gain", "propensity", "reason")
        )
    assert seen == {
        "auto": ("code", "+0.300", "0.56", "code: predicted"),
        "control": ("base", "+0.000", "0.3", "control: base instead of code: predicted"),
        "second": ("cook", "+0.200", "0.14", "second: cook at +0.20 [+0.05, +0.35] instead of code: predicted"),
    }


def test_what_is_off_leaves_every_choice_as_it_was(trial: Callable[..., Any]) -> None:
    headers = trial().chat("code").headers
    assert (headers["x-traitroute-arm"], headers["x-traitroute-propensity"]) == ("auto", "1")
    assert headers["x-traitroute-adapter"] == "code"


def test_later_turns_and_reroutes_stay_on_the_side_of_the_first(trial: Callable[..., Any]) -> None:
    for question, arm in zip(QUESTIONS[:40], arms(trial(0.5)), strict=False):
        other = trial(0.5)
        for more in ({}, {"headers": {"x-traitroute-reroute": "1"}}):
            assert other.chat(question, "and cook", **more).headers["x-traitroute-arm"] == arm


def test_a_session_stays_on_its_side_in_every_process(trial: Callable[..., Any]) -> None:
    drawn = set()
    for n in range(20):
        headers = {"x-traitroute-session": f"session {n}"}
        one, other = trial(0.5), trial(0.5)
        first = one.chat("code", headers=headers).headers
        again = [server.chat(f"cook {n}", headers=headers).headers for server in (one, other)]
        assert {each["x-traitroute-arm"] for each in (first, *again)} == {first["x-traitroute-arm"]}
        assert again[0]["x-traitroute-propensity"] == first["x-traitroute-propensity"]
        assert again[0]["x-traitroute-reason"] == f"session: {first['x-traitroute-reason']}"
        drawn.add(first["x-traitroute-arm"])
    assert drawn == {"auto", "control"}


def test_the_same_text_of_two_keys_is_two_conversations(trial: Callable[..., Any]) -> None:
    server = trial(0.5)
    server.app = KeyCheck(server.app, keys=ApiKeys(["one", "two"]), message="")
    one, two = (arms(server, headers={"authorization": f"Bearer {key}"}) for key in ("one", "two"))
    assert one != two


def test_a_client_cannot_choose_its_side(trial: Callable[..., Any]) -> None:
    server = trial(0.5)
    for arm in ("auto", "control", "second"):
        given = {"x-traitroute-arm": arm, "x-traitroute-propensity": "1", "x-traitroute-decision-token": "x.y"}
        assert arms(server, headers=given) == arms(server)
    refused = server.chat("code", traitroute={"arm": "auto"})
    assert refused.status_code == 400


def test_another_registry_draws_others(trial: Callable[..., Any]) -> None:
    assert arms(trial(0.5)) != arms(trial(0.5, key=b"another secret"))


def test_what_a_client_named_is_never_touched(trial: Callable[..., Any]) -> None:
    server = trial(0.5, 0.2)
    for question in QUESTIONS[:30]:
        response = server.chat(question, model="code")
        assert '"model": "code"' in response.json()["body"]
        assert "x-traitroute-arm" not in response.headers


@pytest.mark.parametrize(
    "constraint",
    [{"allow": ["code"]}, {"deny": ["cook"]}, {"tags": ["work"]}, {"min_gain": 0.1}],
    ids=lambda c: next(iter(c)),
)
def test_nothing_is_tried_outside_the_constraints(trial: Callable[..., Any], constraint: dict[str, Any]) -> None:
    server = trial(0.0, 0.2)
    assert "second" in arms(server)
    for question in QUESTIONS:
        assert server.chat(question, traitroute=constraint).headers["x-traitroute-adapter"] == "code"


def test_where_no_adapter_may_answer_nobody_is_drawn(trial: Callable[..., Any]) -> None:
    headers = trial(0.5).chat("code", headers={"x-traitroute-allow": ""}).headers
    assert headers["x-traitroute-reason"].startswith("constrained")
    assert "x-traitroute-arm" not in headers


def test_a_conversation_in_control_loads_nothing(trial: Callable[..., Any], state: ServerState) -> None:
    loader: Any = state.loader
    server = trial(0.5)
    held = [q for q, arm in zip(QUESTIONS, arms(server), strict=True) if arm == "control"]
    loader.loaded.clear()
    for question in held:
        server.chat(question)
    assert held and loader.loaded == []


def test_arms_are_counted(trial: Callable[..., Any]) -> None:
    client = pytest.importorskip("prometheus_client")

    def counts() -> dict[str, float]:
        return {
            arm: client.REGISTRY.get_sample_value("traitroute_arms_total", {"arm": arm}) or 0
            for arm in ("auto", "control", "second")
        }

    server, before = trial(0.3, 0.2), counts()
    drawn = arms(server)
    assert {arm: n - before[arm] for arm, n in counts().items()} == {arm: drawn.count(arm) for arm in before}


def test_a_server_that_has_read_no_registry_draws_nobody(serve: Callable[[ServerState], Any]) -> None:
    headers = serve(ServerState(experiment=Experiment(0.5), snapshot=RegistrySnapshot())).chat("code").headers
    assert headers["x-traitroute-reason"].startswith("no-profile")
    assert "x-traitroute-arm" not in headers
