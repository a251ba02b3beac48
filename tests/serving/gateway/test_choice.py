"""Which upstream answers, and under which name the adapter is asked for there."""

import json
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from traitroute.adapters import Registry
from traitroute.serving.gateway import Load
from traitroute.serving.vllm import free_port

from .conftest import (
    Gateway,
    Serve,
    Upstream,
    ask,
    eventually,
    make_adapter,
    record,
    running,
)

pytestmark = pytest.mark.slow

EGGS = "how long do I boil eggs a"


def models(upstream: Upstream) -> list[str]:
    return [json.loads(r["body"])["model"] for r in upstream.requests if b"chat" in r["target"]]


def test_auto_goes_to_the_upstream_that_has_the_adapter(gateway: Gateway, serve: Serve) -> None:
    kitchen, office = serve(Upstream("cook")), serve(Upstream("coder"))
    client = gateway(kitchen.url, office.url)
    eggs, code = ask(client, EGGS), ask(client, "write a python function b")
    assert eggs.headers["x-traitroute-adapter"] == eggs.json()["model"] == "cook"
    assert code.headers["x-traitroute-adapter"] == code.json()["model"] == "coder"
    assert (models(kitchen), models(office)) == (["cook"], ["coder"])


def test_what_needs_no_adapter_is_answered_by_the_base_model_under_its_name_there(
    gateway: Gateway, serve: Serve
) -> None:
    client = gateway(serve(Upstream("cook", base="meta/tiny")).url)
    response = ask(client, "zzz qqq")
    assert response.headers["x-traitroute-adapter"] == "base"
    assert response.json()["model"] == "meta/tiny"
    assert ask(client, "hello", model="base").json()["model"] == "meta/tiny"


def test_an_alias_is_the_upstreams_name(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream("kitchen-lora-v3"))
    client = gateway(upstream.url, aliases={"cook": ("kitchen-lora-v3",)})
    response = ask(client, EGGS)
    assert response.headers["x-traitroute-adapter"] == "cook"
    assert response.json()["model"] == "kitchen-lora-v3"


def test_an_adapter_that_nobody_has_leaves_the_answer_to_base_and_says_why(gateway: Gateway, serve: Serve) -> None:
    response = ask(gateway(serve(Upstream()).url), EGGS)
    assert response.json()["model"] == "tiny"
    assert response.headers["x-traitroute-adapter"] == "base"
    assert "cook: no upstream has it" in response.headers["x-traitroute-reason"]


def test_an_adapter_named_by_the_client_is_refused_where_nobody_has_it(gateway: Gateway, serve: Serve) -> None:
    response = ask(gateway(serve(Upstream()).url), "hello", model="cook")
    assert response.status_code == 400
    assert "no upstream has it" in response.json()["error"]["message"]


def test_an_adapter_is_loaded_once_on_demand_from_the_weight_store(
    gateway: Gateway, serve: Serve, registry: Path
) -> None:
    upstream = serve(Upstream())
    upstream.loads = []
    client = gateway(upstream.url, load=Load.VLLM)
    answers = [ask(client, EGGS) for _ in range(3)]
    with Registry.open(registry, read_only=True) as store:
        digest = store.adapter("cook").weights_digest
        path = str(store.weights.path(digest))
    assert upstream.loads == [{"lora_name": f"cook@{digest[:12]}", "lora_path": path}]
    assert {a.headers["x-traitroute-adapter"] for a in answers} == {"cook"}
    assert {a.json()["model"] for a in answers} == {f"cook@{digest[:12]}"}


def test_the_path_is_the_one_that_the_upstream_sees(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    upstream.loads = []
    ask(gateway(upstream.url, load=Load.VLLM, weights=Path("/mnt/weights")), EGGS)
    assert upstream.loads[0]["lora_path"].startswith("/mnt/weights/")


def test_new_weights_are_loaded_under_a_new_name(
    gateway: Gateway, serve: Serve, registry: Path, tmp_path: Path
) -> None:
    upstream = serve(Upstream())
    upstream.loads = []
    client = gateway(upstream.url, load=Load.VLLM)
    before = ask(client, EGGS).json()["model"]
    with Registry.open(registry) as store:
        new = record(store, "cook", make_adapter(tmp_path / "new", 0.9), replace=True)
    eventually(lambda: ask(client, EGGS).json()["model"] != before)
    assert ask(client, EGGS).json()["model"] == f"cook@{new.weights_digest[:12]}"


def test_a_preloaded_name_is_not_used_for_new_weights(
    gateway: Gateway, serve: Serve, registry: Path, tmp_path: Path
) -> None:
    client = gateway(serve(Upstream("cook")).url)
    assert ask(client, EGGS).headers["x-traitroute-adapter"] == "cook"
    with Registry.open(registry) as store:
        record(store, "cook", make_adapter(tmp_path / "new", 0.9), replace=True)
    eventually(lambda: ask(client, EGGS).headers["x-traitroute-adapter"] == "base")


def test_a_refused_load_is_not_tried_at_every_request(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    upstream.loads, upstream.refusal = [], "rank 64 is greater than max_lora_rank 16"
    client = gateway(upstream.url, load=Load.VLLM)
    answers = [ask(client, EGGS) for _ in range(3)]
    assert len(upstream.loads) == 1
    assert all("rank 64" in a.headers["x-traitroute-reason"] for a in answers)
    assert all(a.json()["model"] == "tiny" for a in answers)


def test_an_upstream_without_a_loading_api_says_how_to_get_one(gateway: Gateway, serve: Serve) -> None:
    response = ask(gateway(serve(Upstream()).url, load=Load.VLLM), EGGS)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in response.headers["x-traitroute-reason"]


def test_damaged_weights_are_not_loaded(gateway: Gateway, serve: Serve, registry: Path) -> None:
    with Registry.open(registry, read_only=True) as store:
        file = store.weights.path(store.adapter("cook").weights_digest) / "adapter_model.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    upstream = serve(Upstream())
    upstream.loads = []
    response = ask(gateway(upstream.url, load=Load.VLLM), EGGS)
    assert upstream.loads == []
    assert "damaged or missing" in response.headers["x-traitroute-reason"]


def test_sglang_is_asked_for_base_and_adapter(gateway: Gateway, serve: Serve) -> None:
    upstream = Upstream("cook")
    for card in upstream.cards:
        card["owned_by"] = "sglang"
    ask(gateway(serve(upstream).url), EGGS)
    body = json.loads(upstream.requests[0]["body"])
    assert (body["model"], body["lora_path"]) == ("tiny:cook", "cook")


def test_lorax_is_given_the_path(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = serve(Upstream())
    upstream.status = 404
    client = gateway(upstream.url, load=Load.LORAX)
    ask(client, EGGS)
    ask(client, "zzz qqq")
    with Registry.open(registry, read_only=True) as store:
        path = str(store.weights.path(store.adapter("cook").weights_digest))
    bodies = [json.loads(r["body"]) for r in upstream.requests]
    # It is tried once, then asked.
    assert [(body["model"], body.get("adapter_source")) for body in bodies] == [(path, "local")] * 2 + [("", None)]


def test_ray_is_asked_by_the_digest_of_the_weights(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url, load=Load.RAY)
    for folder in ("new", "newer"):
        answer = ask(client, EGGS)
        with Registry.open(registry) as store:
            named = f"tiny:cook@{store.adapter('cook').weights_digest}"
            assert answer.json() == {"model": named}
            record(store, "cook", make_adapter(registry.parent / folder, len(folder)), replace=True)
            digest = store.adapter("cook").weights_digest
        eventually(lambda digest=digest: ask(client, EGGS).json()["model"].endswith(digest))
    assert ask(client, EGGS, model=named).status_code == 404


def test_base_answers_where_ray_cannot_load(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    upstream.forgetful = True
    client = gateway(upstream.url, load=Load.RAY)
    answer = ask(client, EGGS)
    assert answer.headers.get("x-traitroute-adapter") is None
    assert json.loads(upstream.requests[-1]["body"])["model"] == "tiny"
    upstream.forgetful = False
    answer = ask(client, EGGS)
    assert answer.headers["x-traitroute-adapter"] == "base"
    assert "the upstream did not load it (404): no such model" in answer.headers["x-traitroute-reason"]


def test_an_adapter_that_ray_lists_is_known_by_its_prefix(gateway: Gateway, serve: Serve, registry: Path) -> None:
    with Registry.open(registry, read_only=True) as store:
        digest = store.adapter("coder").weights_digest
    upstream = Upstream()
    names = ["tiny", "tiny:cook", f"tiny:coder@{digest}", f"tiny:critic@{digest[::-1]}"]
    upstream.cards = [{"id": name, "owned_by": "organization-owner"} for name in names]
    client = gateway(serve(upstream).url)
    assert ask(client, EGGS).json() == {"model": "tiny:cook"}
    assert ask(client, "hi", model="coder").json() == {"model": f"tiny:coder@{digest}"}
    assert ask(client, "hi", model="critic").status_code == 400
    assert [ask(client, "hi", model=name).status_code for name in names] == [200, 404, 404, 404]


def test_the_less_busy_upstream_answers(gateway: Gateway, serve: Serve) -> None:
    first, second = serve(Upstream("cook")), serve(Upstream("cook"))
    first.hold.set()
    second.hold.set()
    client = gateway(first.url, second.url)
    threads = [threading.Thread(target=ask, args=(client, f"{EGGS} {i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(models(first)) + len(models(second)) == 12)
    assert abs(len(models(first)) - len(models(second))) <= 4
    first.hold.clear()
    second.hold.clear()
    for thread in threads:
        thread.join()


def test_a_conversation_stays_at_one_upstream(gateway: Gateway, serve: Serve) -> None:
    first, second = serve(Upstream("cook")), serve(Upstream("cook"))
    client = gateway(first.url, second.url)
    turns = [{"role": "user", "content": EGGS}]
    for i in range(6):
        client.post("/v1/chat/completions", json={"model": "auto", "messages": turns})
        turns += [{"role": "assistant", "content": "four"}, {"role": "user", "content": f"and {i}"}]
    assert sorted([len(models(first)), len(models(second))]) == [0, 6]


def test_a_refused_connection_goes_to_another_upstream(gateway: Gateway, serve: Serve, stack: ExitStack) -> None:
    mortal, other = Upstream("cook"), serve(Upstream("cook"))
    with ExitStack() as life:
        mortal.url = life.enter_context(running(mortal))
        client = gateway(mortal.url, other.url)
        health = client.get("/health").json()
        assert health["upstreams"][0]["healthy"]
        assert health["registry"]["reachable"]
    answers = [ask(client, f"{EGGS} {i}") for i in range(8)]
    assert {a.headers["x-traitroute-adapter"] for a in answers} == {"cook"}
    assert len(models(other)) == 8


def test_base_answers_when_the_only_upstream_with_the_adapter_has_just_gone(gateway: Gateway, serve: Serve) -> None:
    mortal, other = Upstream("cook"), serve(Upstream())
    with ExitStack() as life:
        mortal.url = life.enter_context(running(mortal))
        client = gateway(mortal.url, other.url)
    response = ask(client, EGGS)
    assert response.status_code == 200
    assert response.json()["model"] == "tiny"
    assert response.headers.get_list("x-traitroute-adapter") == ["base"]
    assert response.headers["x-traitroute-reason"].startswith("load-failed")


def test_with_all_upstreams_down_the_error_says_so_and_health_too(gateway: Gateway) -> None:
    client = gateway(f"http://127.0.0.1:{free_port()}")
    for response in (
        ask(client, EGGS),
        ask(client, EGGS, model="cook"),
        client.get("/v1/responses/resp_1"),
    ):
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert "no upstream answers" in response.json()["error"]["message"]
    health = client.get("/health")
    assert health.status_code == 503
    assert health.json()["upstreams"][0]["reason"]


def test_metrics_tell_of_choices_and_upstreams(gateway: Gateway, serve: Serve) -> None:
    pytest.importorskip("prometheus_client")
    upstream = serve(Upstream("cook"))
    client = gateway(upstream.url)
    ask(client, EGGS)
    text = client.get("/metrics").text
    assert 'traitroute_decisions_total{adapter="cook"' in text
    assert f'traitroute_upstream_healthy{{upstream="{upstream.url}"}} 1.0' in text


@pytest.mark.slow
def test_an_upstream_returns_into_rotation(gateway: Gateway, stack: ExitStack) -> None:
    port = free_port()
    client = gateway(f"http://127.0.0.1:{port}")
    assert client.get("/health").status_code == 503
    stack.enter_context(running(Upstream("cook"), port))
    eventually(lambda: client.get("/health").status_code == 200)
    assert ask(client, EGGS).headers["x-traitroute-adapter"] == "cook"


def test_a_name_that_an_upstream_no_longer_knows_is_not_asked_for_again(
    gateway: Gateway, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traitroute.serving.gateway.fleet.CHECK_EVERY_S", 600.0)
    upstream = serve(Upstream())
    upstream.loads = []
    client = gateway(upstream.url, load=Load.VLLM)
    ask(client, EGGS)
    upstream.cards = upstream.cards[:1]
    upstream.forgetful = True
    assert ask(client, EGGS).status_code == 404
    upstream.forgetful = False
    assert ask(client, EGGS).status_code == 200
    assert len(upstream.loads) == 2


def test_nobody_can_make_an_adapter_vanish_by_asking_where_its_server_answers_nothing(
    gateway: Gateway, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traitroute.serving.gateway.fleet.CHECK_EVERY_S", 600.0)
    upstream = serve(Upstream("cook"))
    client = gateway(upstream.url)
    upstream.forgetful = True
    assert client.post("/v1/audio/speech", json={"model": "cook"}).status_code == 404
    upstream.forgetful = False
    assert ask(client, EGGS).headers["x-traitroute-adapter"] == "cook"


def test_the_models_are_base_auto_the_adapters_and_what_else_there_is(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream("kitchen", "other"))
    upstream.loads = []
    client = gateway(upstream.url, load=Load.VLLM, aliases={"cook": ("kitchen",)})
    ask(client, "write a python function b")
    names = [card["id"] for card in client.get("/v1/models").json()["data"]]
    assert names == ["base", "auto", "coder", "cook", "critic", "other", "tiny"]


def test_a_base_model_that_cannot_be_told_is_asked_for(gateway: Gateway, serve: Serve) -> None:
    upstream = Upstream()
    upstream.cards = [{"id": name} for name in ("llama3:8b", "qwen:7b")]
    serve(upstream)
    response = ask(gateway(upstream.url), "zzz qqq")
    assert response.status_code == 503
    assert "--alias base=NAME" in response.json()["error"]["message"]
    named = gateway(upstream.url, aliases={"base": ("qwen:7b",)})
    assert ask(named, "zzz qqq").json()["model"] == "qwen:7b"
