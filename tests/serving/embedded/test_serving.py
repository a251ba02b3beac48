"""What the embedded server does with clients that leave, come in crowds, or ask for what is not there."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from made_up_summary import made_up_summary
from safetensors.numpy import load_file, save_file
from traitroute.serving import watcher as following

CHAT = "/v1/chat/completions"


def chat(model: str, text: str = "w7 w57", **more: Any) -> dict[str, Any]:
    settings = {"temperature": 0, "max_tokens": 8}
    return {"model": model, "messages": [{"role": "user", "content": text}], **settings, **more}


def endless(model: str = "red") -> dict[str, Any]:
    return chat(model, "w5", max_tokens=4000, ignore_eos=True, stream=True)


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def error_of(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    return response.json()["error"]["message"]


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def roomy(house: Any) -> Any:
    """The house, with a base model that takes long contexts."""
    config = json.loads((house.base / "config.json").read_text())
    (house.base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 5000}))
    return house


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row(roomy: Any, serve: Any, stream: bool) -> None:
    with serve(roomy, max_model_len=5000) as server, server.client() as client:
        if stream:
            with client.stream("POST", CHAT, json=endless()) as response:
                lines = response.iter_lines()
                next(lines)
                assert server.decoder.rows == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(CHAT, json=endless() | {"stream": False}, timeout=0.5)
        wait_until(lambda: server.decoder.rows == 0)
        assert text_of(client.post(CHAT, json=chat("blue"))) == roomy.alone("blue", "w7 w57", 8)


def test_a_full_queue_asks_to_come_back_later(roomy: Any, serve: Any) -> None:
    with serve(roomy, max_model_len=5000, queue=1) as server, server.client() as client:
        with client.stream("POST", CHAT, json=endless()) as response:
            # Kept: where the iterator is dropped, the client closes the connection.
            lines = response.iter_lines()
            next(lines)
            refused = client.post(CHAT, json=chat("auto"))
            assert "the queue is full" in error_of(refused, 429)
            assert int(refused.headers["retry-after"]) > 0
            assert "x-traitroute-adapter" not in refused.headers
            assert client.get("/health").status_code == 200
        wait_until(lambda: server.decoder.rows == 0)
        assert text_of(client.post(CHAT, json=chat("base")))


def test_replaced_weights_answer_from_then_on(house: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.02)
    old = house.alone("red", "w7 w57", 8)
    with serve(house) as server, server.client() as client:
        assert text_of(client.post(CHAT, json=chat("red"))) == old
        house.put("red", seed=11)
        new = house.alone("red", "w7 w57", 8)
        assert new != old
        wait_until(lambda: text_of(client.post(CHAT, json=chat("red"))) == new)
        answers = {text_of(client.post(CHAT, json=chat("red"))) for _ in range(5)}
        assert answers == {new}


def test_a_replacement_takes_its_name_over_when_it_is_admitted(
    house: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.02)
    old = house.alone("red", "w7 w57", 8)
    with serve(house) as server, server.client() as client:
        waiting = house.replace("red", seed=11)
        new = house.alone("red", "w7 w57", 8)
        wait_until(lambda: client.post(CHAT, json=chat("red@2")).status_code == 200)
        answers = [text_of(client.post(CHAT, json=chat(name))) for name in ("red", "red@2")]
        assert answers == [old, new]
        house.registry.admit(waiting, b"", made_up_summary(), parent=None)
        wait_until(lambda: text_of(client.post(CHAT, json=chat("red"))) == new)
        assert client.post(CHAT, json=chat("red@2")).status_code == 404


def test_health_says_how_the_registry_stands(house: Any, serve: Any) -> None:
    with serve(house) as server, server.client() as client:
        health = client.get("/health").json()
        assert health["status"] == "ok"
        assert health["registry"]["reachable"]
        assert 0 <= health["registry"]["age_s"] < 30


def test_replacing_weights_leaves_an_answer_under_way_alone(
    roomy: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.02)
    with serve(roomy, max_model_len=5000, max_loras=1) as server, server.client() as client:
        plain = chat("red", "w5", max_tokens=400, ignore_eos=True)
        before = text_of(client.post(CHAT, json=plain))
        with client.stream("POST", CHAT, json=plain | {"stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            roomy.put("red", seed=11)
            said = [json.loads(x[6:]) for x in lines if x.startswith("data: {")]
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in said) == before


def test_more_adapters_than_slots_take_turns(house: Any, serve: Any) -> None:
    names = ["red", "green", "blue"]
    alone = {name: house.alone(name, "w7 w57", 8) for name in names}
    with serve(house, max_loras=1) as server, server.client() as client:
        found: list[tuple[str, str]] = []

        def ask(name: str) -> None:
            found.append((name, text_of(client.post(CHAT, json=chat(name)))))

        threads = [threading.Thread(target=ask, args=(names[i % 3],)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 12
        assert all(answer == alone[name] for name, answer in found)
        assert len(server.decoder.mixed.loaded) == 1


def test_weights_that_vanish_are_refused_by_name_and_base_stands_in(house: Any, serve: Any) -> None:
    house.put_profile()
    digest = house.registry.adapter("red").weights_digest
    shutil.rmtree(house.registry.weights.path(digest))
    with serve(house) as server, server.client() as client:
        refused = error_of(client.post(CHAT, json=chat("red")))
        assert refused == "red: its stored weights are damaged or missing"
        routed = client.post(CHAT, json=chat("auto", "w10 w11 w10"))
        assert routed.headers["x-traitroute-reason"].startswith("load-failed")
        assert text_of(routed) == house.alone(None, "w10 w11 w10", 8)


def test_an_adapter_of_the_embedding_and_the_head_answers_as_alone(house: Any, serve: Any) -> None:
    house.put("ends", seed=5, modules=["embed_tokens", "lm_head", "q_proj"])
    with serve(house) as server, server.client() as client:
        for name in ("ends", "base"):
            alone = house.alone(None if name == "base" else name, "w7 w57", 8)
            assert text_of(client.post(CHAT, json=chat(name))) == alone


def test_what_would_change_other_rows_is_refused(house: Any, serve: Any) -> None:
    house.put("odd", seed=5, bias="lora_only")
    with serve(house) as server, server.client() as client:
        error = error_of(client.post(CHAT, json=chat("odd")))
        assert "cannot share batches with other adapters (bias" in error
        assert text_of(client.post(CHAT, json=chat("base"))) == house.alone(None, "w7 w57", 8)


def test_an_adapter_of_other_shapes_is_refused_and_leaves_no_trace(house: Any, serve: Any, tmp_path: Any) -> None:
    import transformers

    sizes = house.tiny.llama_sizes() | {"hidden_size": 24, "intermediate_size": 24}
    base, house.base = (
        house.base,
        house.tiny.save(tmp_path / "b", transformers.LlamaConfig(**sizes)),
    )
    house.put("small", seed=5)
    house.base = base
    with serve(house) as server, server.client() as client:
        for _ in range(2):
            assert "small: " in error_of(client.post(CHAT, json=chat("small")))
            for name in ("base", "green"):
                alone = house.alone(None if name == "base" else name, "w7 w57", 8)
                assert text_of(client.post(CHAT, json=chat(name))) == alone
        assert error_of(client.post(CHAT, json=chat("small")))


def rename(folder: Path, *, old: str, new: str) -> None:
    """Rename layers of an adapter in its tensors."""
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.model.", "base_model.model._orig_mod.model."),
        ("base_model.model.model.", "base_model.model.language_model.model."),
        ("layers.1.self_attn.q_proj", "layers.7.self_attn.q_proj"),
        ("model.layers.1.", "_orig_mod.model.layers.1."),
    ],
)
def test_half_an_adapter_is_none(house: Any, serve: Any, old: str, new: str) -> None:
    house.put_edited("half", seed=5, edit=lambda folder: rename(folder, old=old, new=new))
    with serve(house) as server, server.client() as client:
        assert error_of(client.post(CHAT, json=chat("half"))).startswith("half: ")
        for name in ("base", "green"):
            alone = house.alone(None if name == "base" else name, "w7 w57", 8)
            assert text_of(client.post(CHAT, json=chat(name))) == alone


def test_a_strangers_pattern_is_never_run(house: Any, serve: Any) -> None:
    def set_pattern(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        # PEFT would try it on every module's name, and take twice as long for each letter more.
        config["target_modules"] = "(([a-z0-9_]+)*[.]?)*!"
        (folder / "adapter_config.json").write_text(json.dumps(config))

    house.put("plain", seed=5)
    house.put_edited("slow", seed=5, edit=set_pattern)
    with serve(house) as server, server.client() as client:
        since = time.monotonic()
        answered = text_of(client.post(CHAT, json=chat("slow")))
        assert time.monotonic() - since < 10
        assert answered == house.alone("plain", "w7 w57", 8)


def test_an_adapter_of_another_base_is_refused(house: Any, serve: Any) -> None:
    with serve(house, base_digest="1" * 64) as server, server.client() as client:
        assert "trained for tiny, not for this base" in error_of(client.post(CHAT, json=chat("red")))


def test_without_the_key_nothing_is_routed_or_loaded(house: Any, serve: Any) -> None:
    with serve(house, api_key="secret") as server, server.client() as client:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            refused = client.post(CHAT, json=chat("red"), headers=headers)
            assert error_of(refused, 401) == "the API key is missing or wrong"
        assert server.decoder.mixed.loaded == ()
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").status_code == 200
        keyed = client.post(CHAT, json=chat("red"), headers={"authorization": "Bearer secret"})
        assert text_of(keyed)


def test_a_model_whose_caches_cannot_be_joined_answers_batch_by_batch(house: Any, serve: Any) -> None:
    import transformers

    config = transformers.MistralConfig(**house.tiny.llama_sizes(), sliding_window=6)
    house.tiny.save(house.base, config)
    asked = [
        ("red", "w7 w57"),
        ("base", "w5"),
        ("green", "w9 w8 w7 w6 w5 w4 w3"),
        ("red", "w7"),
    ] * 3
    alone = {(n, p): house.alone(None if n == "base" else n, p, 8) for n, p in asked}
    with serve(house) as server, server.client() as client:
        found: list[tuple[tuple[str, str], str]] = []

        def ask(name: str, prompt: str) -> None:
            found.append(((name, prompt), text_of(client.post(CHAT, json=chat(name, prompt)))))

        threads = [threading.Thread(target=ask, args=each) for each in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(found) == len(asked)
    assert all(answer == alone[key] for key, answer in found)


def test_a_batch_that_fails_ends_its_requests_and_not_the_server(
    house: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(house) as server, server.client() as client:
        model = server.decoder.mixed.local.model
        hook = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
        failed = error_of(client.post(CHAT, json=chat("base")), 503)
        hook.remove()
        assert failed == "the batch failed: ZeroDivisionError"
        assert text_of(client.post(CHAT, json=chat("base"))) == house.alone(None, "w7 w57", 8)


def test_values_that_are_no_numbers_end_that_answer_only(house: Any, serve: Any) -> None:
    with serve(house) as server, server.client() as client:
        server.decoder.mixed.local.model.lm_head.weight.data[:] = float("nan")
        assert "no numbers" in error_of(client.post(CHAT, json=chat("base")), 503)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 2}, '"n" is not offered'),
        ({"logprobs": True}, '"logprobs" is not offered'),
        ({"tools": [{"type": "function"}]}, '"tools" is not offered'),
        ({"response_format": {"type": "json_object"}}, '"response_format" is not offered'),
        ({"temperature": -1}, "temperature: "),
        ({"top_p": 0}, "top_p: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 10_000}, "context of 128"),
        ({"stop": [""]}, "stop"),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "tool", "content": "w5"}]}, "messages.0.role: "),
        ({"messages": [{"role": "user", "content": " "}]}, "the prompt is empty"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "the model has no token 64"),
    ],
)
def test_what_is_wrong_or_not_offered_is_said(client: httpx.Client, change: dict[str, Any], message: str) -> None:
    assert message in error_of(client.post(CHAT, json=chat("red") | change))


@pytest.mark.parametrize(
    "nothing",
    [
        {"n": 1, "logprobs": False, "top_logprobs": None, "presence_penalty": 0.0, "tools": []},
        {"user": "me", "metadata": {}, "response_format": {"type": "text"}, "top_k": -1},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "w7 w57"}]}]},
        {"messages": [{"role": "developer", "content": "w7"}, {"role": "user", "content": "w57"}]},
        {"max_tokens": None, "max_completion_tokens": 8},
    ],
)
def test_what_changes_nothing_is_taken(client: httpx.Client, nothing: dict[str, Any]) -> None:
    plain = text_of(client.post(CHAT, json=chat("red")))
    assert text_of(client.post(CHAT, json=chat("red") | nothing)) == plain


@pytest.mark.parametrize("content", [b"no json", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, content: bytes) -> None:
    assert error_of(client.post(CHAT, content=content))


def test_several_prompts_are_refused(client: httpx.Client) -> None:
    body = {"model": "red", "prompt": ["w5", "w6"]}
    assert "one prompt" in error_of(client.post("/v1/completions", json=body))


def test_metrics_tell_of_routing_and_of_the_batch(client: httpx.Client) -> None:
    pytest.importorskip("prometheus_client")
    text_of(client.post(CHAT, json=chat("auto", "w10 w11 w10")))
    shown = client.get("/metrics").text
    assert 'traitroute_decisions_total{adapter="red"' in shown
    assert "traitroute_embedded_rows 0.0" in shown


def test_an_unknown_model_or_path_is_not_found(client: httpx.Client) -> None:
    assert "'nosuch' does not exist" in error_of(client.post(CHAT, json=chat("nosuch")), 404)
    assert error_of(client.get("/v1/nosuch"), 404)


def test_a_denied_adapter_does_not_answer_by_its_name(client: httpx.Client) -> None:
    denied = {"x-traitroute-deny": "red"}
    told = error_of(client.post(CHAT, json=chat("red"), headers=denied), 403)
    assert "x-traitroute-deny" in told
    assert client.post(CHAT, json=chat("green"), headers=denied).status_code == 200


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, {"messages": [{"role": "system", "content": "w11 w12"}]}),
        ("/v1/completions", {"prompt": [11, 12]}),
    ],
)
def test_what_says_nothing_is_answered_by_base(client: httpx.Client, path: str, asked: dict[str, Any]) -> None:
    response = client.post(path, json={"model": "auto", "max_tokens": 2, **asked})
    assert response.json()["model"] == "tiny"
    assert response.headers["x-traitroute-reason"].startswith("no-text: ")
