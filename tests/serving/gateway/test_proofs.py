"""A gateway asks every upstream for the probe before it sends clients there for an adapter."""

import threading
from typing import Any

import httpx
import pytest
from traitroute.adapters import Registry

from .conftest import Upstream, ask

CODE = "write a python function"


def chosen(answer: httpx.Response) -> str:
    return answer.headers["x-traitroute-adapter"]


def add(registry: Any, effect: float) -> None:
    """Record what measuring showed of the adapters."""
    with Registry.open(registry) as opened:
        for adapter in opened.adapters():
            opened.set_effect(adapter, effect, 0.0)


def test_an_adapter_that_an_upstream_ignores_is_set_aside(serve: Any, gateway: Any, registry: Any) -> None:
    add(registry, 9.0)
    upstream = Upstream("coder", "cook")
    upstream.idle = {"coder"}
    client = gateway(serve(upstream).url)
    auto, named = ask(client, CODE), ask(client, CODE, "coder")
    assert (auto.status_code, chosen(auto)) == (200, "base")
    assert auto.headers["x-traitroute-reason"].startswith("load-failed: coder is set aside: asked for it, this server")
    assert named.status_code == 400
    assert "answers as base (0 nats on the probe, noise 0)" in named.json()["error"]["message"]
    assert chosen(ask(client, "bake bread without yeast")) == "cook"
    assert [r for r in upstream.requests if b'"coder"' in r["body"]] == []


def test_another_upstream_that_applies_it_answers(serve: Any, gateway: Any, registry: Any) -> None:
    add(registry, 9.0)
    deaf, sound = Upstream("coder"), Upstream("coder")
    deaf.idle = {"coder"}
    client = gateway(serve(deaf).url, serve(sound).url)
    assert {chosen(ask(client, CODE)) for _ in range(6)} == {"coder"}
    assert (len(deaf.requests), len(sound.requests)) == (0, 6)


@pytest.mark.parametrize("effect", [None, 0.0])
def test_measuring_is_better_evidence_than_a_probe_that_is_blind(
    serve: Any, gateway: Any, registry: Any, effect: float | None
) -> None:
    if effect is not None:
        add(registry, effect)
    upstream = Upstream("coder")
    upstream.idle = {"coder"}
    client = gateway(serve(upstream).url)
    assert chosen(ask(client, CODE)) == "coder"
    skills = client.get("/v1/skills").json()["skills"]
    [applied] = [skill["applied"] for skill in skills if skill["name"] == "coder"]
    assert (applied["verdict"], applied["effect"]) == ("unproven", 0.0)


@pytest.mark.parametrize("idle", [True, False])
def test_of_a_server_without_log_probabilities_texts_are_compared(
    serve: Any, gateway: Any, registry: Any, idle: bool
) -> None:
    add(registry, 9.0)
    upstream = Upstream("coder")
    upstream.idle, upstream.gives_logprobs = {"coder"} if idle else set(), False
    client = gateway(serve(upstream).url)
    assert chosen(ask(client, CODE)) == "coder"
    [applied] = [s["applied"] for s in client.get("/v1/skills").json()["skills"] if s["name"] == "coder"]
    assert applied["verdict"] == ("unproven" if idle else "applied")
    assert ("its texts are alike" in applied["reason"]) is idle


def test_a_crowd_waits_for_one_proof(serve: Any, gateway: Any) -> None:
    upstream = Upstream("coder")
    client = gateway(serve(upstream).url)
    crowd = [threading.Thread(target=ask, args=(client, CODE, "coder")) for _ in range(8)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert upstream.probed == {"tiny": 16, "coder": 8}
    assert len(upstream.requests) == 8


def test_metrics_show_the_verdict_and_the_figures(serve: Any, gateway: Any) -> None:
    client = gateway(serve(Upstream("critic")).url)
    ask(client, "review this novel", "critic")
    shown = client.get("/metrics").text
    assert 'traitroute_adapter_verdict{adapter="critic",verdict="applied"} 1.0' in shown
    assert 'traitroute_adapter_effect_nats{adapter="critic"} 2.0' in shown
    assert "traitroute_probe_noise_nats 0.0" in shown
