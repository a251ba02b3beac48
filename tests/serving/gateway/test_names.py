"""Which models a client may ask for, however it names them: what the registry offers, and what is none of its
business.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from traitroute.adapters import AdapterState, Registry
from traitroute.serving.gateway import Load

from .conftest import CHAT, Gateway, Serve, Upstream, ask, eventually

EGGS = "how long do I boil eggs a"
CHEF = {"cook": ("chef",)}


def digest_of(registry: Path, name: str) -> str:
    with Registry.open(registry, read_only=True) as store:
        return store.adapter(name).weights_digest


def disable(registry: Path, name: str) -> None:
    with Registry.open(registry) as store:
        store.set_state(name, AdapterState.DISABLED)


def remove(registry: Path, name: str) -> None:
    with Registry.open(registry) as store:
        store.remove_adapter(name)


def preloaded(registry: Path) -> Upstream:
    """An upstream that has `cook` under every name that there is."""
    digest = digest_of(registry, "cook")
    upstream = Upstream("cook", "cook:latest", "Cook:7b", "tiny:cook", "chef", "CHEF:latest", "other")
    for name, root in {
        f"cook@{digest[:12]}": f"/store/{digest}",
        "cook@anything": None,
        "kitchen": f"/store/{digest}/",
        "cellar": digest,
    }.items():
        upstream.cards.append({"id": name, "root": root, "parent": "tiny", "owned_by": "vllm"})
    return upstream


def names(client: httpx.Client) -> list[str]:
    return [card["id"] for card in client.get("/v1/models").json()["data"]]


def test_the_upstreams_base_model_answers_for_no_adapter_that_is_called_so(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream("critic", base="cook"))
    client = gateway(upstream.url)
    assert ask(client, "hi", model="critic").status_code == 200
    refused = ask(client, "hi", model="cook")
    assert refused.status_code == 400
    assert "cook: no upstream has it" in refused.json()["error"]["message"]


@pytest.mark.parametrize("withdraw", [disable, remove])
@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_a_withdrawn_adapter_answers_by_no_name_and_is_not_listed(
    gateway: Gateway, serve: Serve, registry: Path, withdraw: Any, when: str
) -> None:
    upstream = serve(preloaded(registry))
    if when == "before the start":
        withdraw(registry, "cook")
    client = gateway(upstream.url, aliases=CHEF)
    if when == "while it runs":
        assert ask(client, "hi", model="cook").status_code == 200
        withdraw(registry, "cook")
        eventually(lambda: "cook" not in names(client))
    upstream.requests.clear()
    assert names(client) == ["base", "auto", "coder", "critic", "other", "tiny"]
    for card in upstream.cards:
        if card["id"] in ("tiny", "other"):
            continue
        for path in (CHAT, "/v1/rerank", "/v1/embeddings", "/tokenize"):
            answer = client.post(path, json={"model": card["id"], "messages": [], "query": "hi"})
            assert answer.status_code == 404, (card["id"], path)
            assert answer.json()["error"]["param"] == "model"
    assert upstream.requests == []
    assert ask(client, EGGS).headers["x-traitroute-adapter"] == "base"
    assert ask(client, "hi", model="other").status_code == 200


def test_a_served_adapter_answers_by_its_name_alone(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = serve(preloaded(registry))
    client = gateway(upstream.url, aliases=CHEF)
    assert ask(client, "hi", model="cook").status_code == 200
    for name in ("chef", "cook:latest", "kitchen", "cook@anything", "tiny:cook", "COOK", "nothing"):
        assert ask(client, "hi", model=name).status_code == 404, name


def test_ollamas_short_names_are_known(gateway: Gateway, serve: Serve) -> None:
    upstream = Upstream()
    upstream.cards = [{"id": name} for name in ("llama3:latest", "qwen:7b")]
    client = gateway(serve(upstream).url, aliases={"base": ("qwen:7b",)})
    assert ask(client, "hi", model="llama3").json()["model"] == "llama3:latest"
    assert ask(client, "hi", model="qwen:7b").json()["model"] == "qwen:7b"
    assert ask(client, "hi", model="qwen").status_code == 404


def test_a_withdrawn_adapter_is_never_taken_for_the_base_model(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = Upstream()
    upstream.cards = [{"id": "cook:latest"}]
    disable(registry, "cook")
    response = ask(gateway(serve(upstream).url), "hi", model="base")
    assert response.status_code == 503
    assert "--alias base=NAME" in response.json()["error"]["message"]
    assert upstream.requests == []


ELSEWHERE: list[dict[str, Any]] = [
    {"lora_path": "cook"},
    {"lora_path": ["cook"]},
    {"lora_id": "7"},
    {"lora_request": {"lora_name": "cook", "lora_path": "/x"}},
    {"lora": [{"id": 0, "scale": 1.0}]},
    {"adapter_id": "cook"},
    {"adapter_source": "local"},
    {"adapters": "/x"},
    {"loraPath": "cook"},
    {"MODEL": "cook"},
    {"Model": "cook"},
    {"models": ["cook"]},
    {"fallbacks": ["cook"]},
    {"parameters": {"adapter_id": "cook"}},
    {"parameters": {"merged_adapters": {"ids": ["cook"]}}},
    {"sampling_params": {"lora_path": "cook"}},
    {"extra_body": {"lora_path": "cook"}},
]


def test_a_body_names_an_adapter_as_model_and_nowhere_else(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream("coder"))
    client = gateway(upstream.url)
    messages = [{"role": "user", "content": "hi"}]
    for more in ELSEWHERE:
        for model in ("auto", "base", "tiny", "coder"):
            asked = {"model": model, "messages": messages, **more}
            for path in (CHAT, "/v1/messages", "/v1/chat/completions/batch"):
                assert client.post(path, json=asked).status_code == 400, (more, model, path)
    assert upstream.requests == []


def test_an_adapter_named_by_null_is_none(gateway: Gateway, serve: Serve) -> None:
    response = gateway(serve(Upstream()).url).post(CHAT, json={"model": "base", "lora_path": None})
    assert response.status_code == 200


UNCLEAR = [
    b'{"model": "cook", "seed": ' + b"1" * 5000 + b"}",
    b'{"model": "cook", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"model": "tiny", "x": ' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"model": "cook"} {"x": 1}',
    b'{"model": "cook",}',
    b'{"model": ["cook"]}',
    b'{"model": 7}',
    b'[{"model": "cook"}]',
    b'"cook"',
    b"model=cook",
    b"\x1f\x8b\x08\x00",
    b"\xff\xfe",
    b"",
]


def test_a_body_that_cannot_be_understood_is_not_handed_on(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = serve(Upstream("cook"))
    disable(registry, "cook")
    client = gateway(upstream.url)
    for body in UNCLEAR:
        for kind in ("application/json", "multipart/form-data", "audio/wav", ""):
            for path in (CHAT, "/v1/rerank"):
                answer = client.post(path, content=body, headers={"content-type": kind})
                assert answer.status_code == 400, (body[:30], kind, path)
    assert upstream.requests == []


def test_what_was_understood_is_what_is_sent(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream("cook"))
    body = '{"model": "cook", "n": 1e2, "mod\\u0065l": "tiny", "text": "\xfc \\ud83d\\ude00"}'
    gateway(upstream.url).post(CHAT, content=body.encode("utf-16"))
    sent = upstream.requests[-1]["body"].decode()
    assert sent == '{"model":"tiny","n":100.0,"text":"\xfc \U0001f600"}'


@pytest.mark.slow
def test_a_loaded_name_is_believed_by_the_folder_that_the_upstream_lists(
    gateway: Gateway, serve: Serve, registry: Path
) -> None:
    digest = digest_of(registry, "cook")
    upstream = Upstream(f"cook@{digest[:12]}")
    client = gateway(serve(upstream).url)
    # No root, another folder, the right beginning only: another adapter may answer by that name.
    for root in (None, "/elsewhere", f"/store/{digest[:12]}", f"/store/{'0' * 64}"):
        upstream.cards[1]["root"] = root
        time.sleep(2.2)
        assert ask(client, EGGS).headers["x-traitroute-adapter"] == "base", root
    upstream.cards[1]["root"] = f"/mnt/weights/{digest}"
    eventually(lambda: ask(client, EGGS).headers["x-traitroute-adapter"] == "cook")


def test_an_upstream_that_shows_no_folder_cannot_be_made_to_load(gateway: Gateway, serve: Serve) -> None:
    class Silent(Upstream):
        async def _load(self, wanted: dict[str, str], send: Any) -> None:
            await super()._load(wanted, send)
            self.cards[-1]["root"] = None

    upstream = Silent()
    upstream.loads = []
    response = ask(gateway(serve(upstream).url, load=Load.VLLM), EGGS)
    assert response.headers["x-traitroute-adapter"] == "base"
    assert "not with the folder of its weights as root" in response.headers["x-traitroute-reason"]


def test_a_name_in_the_weight_store_is_the_adapter_whatever_it_is_called(
    gateway: Gateway, serve: Serve, registry: Path
) -> None:
    upstream = Upstream("kitchen")
    upstream.cards[1]["root"] = f"/store/{digest_of(registry, 'cook')}"
    response = ask(gateway(serve(upstream).url), EGGS)
    assert (response.headers["x-traitroute-adapter"], response.json()["model"]) == (
        "cook",
        "kitchen",
    )


def test_sglangs_own_adapters_are_asked_for_as_it_wants(gateway: Gateway, serve: Serve) -> None:
    upstream = Upstream("other")
    for card in upstream.cards:
        card["owned_by"] = "sglang"
    ask(gateway(serve(upstream).url), "hi", model="other")
    body = json.loads(upstream.requests[0]["body"])
    assert (body["model"], body["lora_path"]) == ("tiny:other", "other")


def test_lorax_is_given_no_path_of_the_clients(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = serve(Upstream())
    upstream.status = 404
    disable(registry, "cook")
    client = gateway(upstream.url, load=Load.LORAX)
    for model in ("/etc/passwd", "someone/adapter", "cook", "tiny"):
        assert ask(client, "hi", model=model).status_code == 404, model
    assert upstream.requests == []


def test_without_a_registry_only_the_base_model_answers(gateway: Gateway, serve: Serve, registry: Path) -> None:
    registry.unlink()
    client = gateway(serve(Upstream("cook", "other")).url)
    assert [ask(client, "hi", model=m).status_code for m in ("cook", "other")] == [404, 404]
    assert ask(client, "hi", model="base").status_code == 200


def test_a_denied_adapter_does_not_answer_by_its_name(gateway: Gateway, serve: Serve, registry: Path) -> None:
    upstream = serve(preloaded(registry))
    client = gateway(upstream.url, aliases=CHEF)
    denied, allowed = {"x-traitroute-deny": "cook"}, {"x-traitroute-allow": "coder"}
    for model in ("cook", "chef", "cook:latest", "kitchen"):
        for headers in (denied, allowed):
            assert ask(client, "hi", model=model, headers=headers).status_code in (403, 404), model
    assert ask(client, "hi", model="cook", headers=denied).status_code == 403
    assert upstream.requests == []
    for model in ("base", "tiny"):
        assert ask(client, "hi", model=model, headers=allowed).status_code == 200
    assert ask(client, "hi", model="other", headers=allowed).status_code == 403


def test_a_large_request_does_not_hold_the_others_up(gateway: Gateway, serve: Serve) -> None:
    client = gateway(serve(Upstream()).url)
    body = b'{"model": "tiny", "x": [' + b'"a",' * 2_000_000 + b'"b"]}'
    worst = 0.0
    large = threading.Thread(target=lambda: client.post("/v1/rerank", content=body))
    large.start()
    while large.is_alive():
        start = time.perf_counter()
        client.get("/health")
        worst = max(worst, time.perf_counter() - start)
    large.join()
    assert worst < 1.0
