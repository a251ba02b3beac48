"""A real vLLM: two API server processes, two engines, a two-layer Llama, adapters that change every answer."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving.stand import save_adapter
from serving.topics import TOPICS
from traitroute.adapters import RefusalError, Registry, ServerError
from traitroute.serving.engines import EngineRequest, TransformersEngine
from traitroute.serving.engines.completions import CompletionsClient
from traitroute.serving.engines.openai import OpenAIEngine
from traitroute.serving.vllm import RunningServer, running_server

from ..servers import ADMIN, HALF, KEY, PAGE, RETIRED, WIDE, TinyHouse

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]

CHAT = "/v1/chat/completions"
SEEN_WITHIN_S = 3
NAMES = ("coder", "cook", "critic")


@pytest.fixture
def client(vllm_server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=vllm_server.base_url, headers=headers, timeout=60) as client:
        yield client


def body(model: str, text: str, **more: Any) -> dict[str, Any]:
    settings = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
    return {"model": model, "messages": [{"role": "user", "content": text}], **settings, **more}


def answer(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def test_sixty_mixed_requests_are_each_answered_by_the_adapter_named(client: httpx.Client) -> None:
    models = [*NAMES, "base"]
    texts = [TOPICS[name][0] for name in NAMES]
    alone = {(m, t): answer(client.post(CHAT, json=body(m, t))) for m in models for t in texts}
    assert all(len({alone[m, t] for m in models}) == len(models) for t in texts)
    asked = [(models[i % 4], texts[i % 3]) for i in range(60)]

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers, timeout=60) as many:
            return await asyncio.gather(*(many.post(CHAT, json=body(m, t)) for m, t in asked))

    responses = asyncio.run(ask_all())
    assert [answer(r) for r in responses] == [alone[key] for key in asked]


@pytest.mark.parametrize("name", NAMES)
def test_auto_answers_as_the_adapter_that_header_and_model_name(client: httpx.Client, name: str) -> None:
    text = TOPICS[name][0] + " a"
    response = client.post(CHAT, json=body("auto", text))
    assert response.headers["x-traitroute-adapter"] == response.json()["model"] == name
    assert float(response.headers["x-traitroute-gain"]) > 0.3
    assert answer(response) == answer(client.post(CHAT, json=body(name, text)))


def test_auto_is_base_where_no_adapter_surely_helps(client: httpx.Client) -> None:
    response = client.post(CHAT, json=body("auto", "zq 81 xv"))
    assert response.headers["x-traitroute-adapter"] == "base"
    assert response.json()["model"] == "tiny"


def test_a_stream_carries_the_headers_and_the_model(client: httpx.Client) -> None:
    request = body("auto", TOPICS["cook"][1] + " b", stream=True)
    with client.stream("POST", CHAT, json=request) as response:
        assert response.headers["x-traitroute-adapter"] == "cook"
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[-1] == "[DONE]"
    assert len(events) > 3
    assert {json.loads(event)["model"] for event in events[:-1]} == {"cook"}


def test_the_model_list_shows_what_may_be_asked_for(client: httpx.Client) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    served = {*TOPICS, HALF, WIDE} - {RETIRED}
    assert list(cards) == ["tiny", "base", "auto", *sorted(served)]
    assert cards["cook"]["parent"] == "tiny"


def prompts(path: str, text: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}]
    settings = {"temperature": 0, "max_tokens": 8}
    return {
        "/v1/completions": {"prompt": text, **settings},
        "/v1/responses": {"input": text, "temperature": 0, "max_output_tokens": 8},
        "/v1/messages": {"messages": turns, **settings},
        "/invocations": {"messages": turns, **settings},
    }[path]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages", "/invocations"])
@pytest.mark.parametrize("name", NAMES)
def test_every_endpoint_answers_as_the_adapter_named(client: httpx.Client, path: str, name: str) -> None:
    asked = {"x-traitroute-model": "auto"} if path == "/invocations" else {}
    named = {"x-traitroute-model": name} if path == "/invocations" else {}
    request = prompts(path, TOPICS[name][0] + " a")
    routed = client.post(path, json={**request, "model": "auto"}, headers=asked)
    direct = client.post(path, json={**request, "model": name}, headers=named)
    assert routed.status_code == direct.status_code == 200, routed.text
    assert routed.headers["x-traitroute-adapter"] == routed.json()["model"] == name
    assert spoken(routed) == spoken(direct)
    assert len({spoken(client.post(path, **as_model(path, m, request))) for m in NAMES}) == 3


def as_model(path: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
    headers = {"x-traitroute-model": name} if path == "/invocations" else {}
    return {"json": {**request, "model": name}, "headers": headers}


def spoken(response: httpx.Response) -> str:
    """What the model said, in any of the answers' forms."""
    answer = response.json()
    [said] = answer.get("choices") or answer.get("output") or answer["content"]
    return json.dumps(said.get("text") or said.get("message", said).get("content"), sort_keys=True)


def test_tokens_are_counted_for_auto(client: httpx.Client) -> None:
    turns = [{"role": "user", "content": TOPICS["cook"][0]}]
    tokenized = client.post("/tokenize", json={"model": "auto", "messages": turns})
    counted = client.post("/v1/messages/count_tokens", json={"model": "auto", "messages": turns})
    assert tokenized.headers["x-traitroute-adapter"] == "cook"
    assert tokenized.json()["count"] > 0
    assert counted.json()["input_tokens"] > 0, counted.text


@pytest.mark.parametrize(
    "path",
    ["/invocations", "/invocations/", "//invocations", "/%69nvocations", "/tokenize", "/sleep"],
)
@pytest.mark.parametrize("header", ["x-traitroute-model", "X-Amzn-SageMaker-Adapter-Identifier"])
def test_paths_that_vllm_leaves_open_ask_for_a_key(client: httpx.Client, path: str, header: str) -> None:
    answer(client.post(CHAT, json=body("cook", "hello")))
    request = {"model": "cook", "prompt": TOPICS["cook"][0], "max_tokens": 1}
    for model in ("auto", "cook", ""):
        headers = {"authorization": "", header: model}
        assert client.post(path, json=request, headers=headers).status_code == 401


def test_what_watches_over_a_server_needs_no_key(client: httpx.Client) -> None:
    for path in ("/health", "/ping", "/version", "/load"):
        assert client.get(path, headers={"authorization": ""}).status_code == 200, path
    # It names adapters, and this server has tenants.
    assert client.get("/metrics", headers={"authorization": ""}).status_code == 401
    assert client.get("/metrics").status_code == 200


def test_anthropics_key_is_taken_on_its_paths(client: httpx.Client) -> None:
    told, asked = {"authorization": "", "x-api-key": KEY}, prompts("/v1/messages", "boil eggs")
    request = asked | {"model": "cook"}
    answered = client.post("/v1/messages", json=request, headers=told)
    assert answered.status_code == 200, answered.text
    assert answered.json()["model"] == "cook"
    refused = client.post("/v1/messages", json=request, headers=told | {"x-api-key": "x"})
    assert (refused.status_code, refused.json()["type"]) == (401, "error")
    assert refused.json()["error"]["type"] == "authentication_error"


def test_one_model_is_told_of_by_its_name(client: httpx.Client) -> None:
    for name in ("tiny", "base", "auto", "cook"):
        assert client.get(f"/v1/models/{name}").json()["id"] == name
    unknown = client.get("/v1/models/nobody")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["type"] == "invalid_request_error"


def test_a_page_that_may_ask_reads_what_routing_tells(client: httpx.Client) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST", "authorization": ""}
    preflight = client.options(CHAT, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    told = client.post(CHAT, json=body("auto", "hello"), headers={"origin": PAGE})
    assert "x-traitroute-adapter" in told.headers["access-control-expose-headers"]
    other = client.options(CHAT, headers=asked | {"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_running_server_measures_what_the_engine_in_this_process_does(
    client: httpx.Client, tiny_house: TinyHouse
) -> None:
    base, registry = tiny_house.base, tiny_house.registry
    adapters = [None, *(registry.adapter(name) for name in NAMES)]
    asked = [
        EngineRequest(({"role": "user", "content": text},), a, 8, ("yes of course", "no", "no"))
        for a in adapters
        for text in (TOPICS["cook"][0], TOPICS["critic"][0])
    ]
    local = TransformersEngine(base, registry.weights, precision="float32").run(asked)
    with CompletionsClient(str(client.base_url), api_key=KEY) as there:
        engine = OpenAIEngine(there, base)
        assert engine.name == "openai-vllm"
        remote = engine.run(asked)
    assert [r.text for r in remote] == [r.text for r in local]
    assert len({r.text for r in remote}) == len(asked)
    for here, away in zip(local, remote, strict=True):
        assert here.candidate_tokens == away.candidate_tokens
        assert (here.output_tokens, here.finish_reason) == (away.output_tokens, away.finish_reason)
        assert away.log_likelihoods == pytest.approx(here.log_likelihoods, abs=1e-3)


def test_an_adapter_that_the_server_cannot_load_is_refused_and_not_measured(
    client: httpx.Client, tiny_house: TinyHouse
) -> None:
    base, registry = tiny_house.base, tiny_house.registry
    turns = ({"role": "user", "content": TOPICS["critic"][0]},)
    refused = pytest.raises(RefusalError, match="rank 16 is greater than max_lora_rank 8")
    with CompletionsClient(str(client.base_url), api_key=KEY) as there, refused:
        OpenAIEngine(there, base).run([EngineRequest(turns, registry.adapter("wide"), 8)])


def test_what_a_server_lacks_or_refuses_is_known_before_anything_is_measured(
    client: httpx.Client, tiny_house: TinyHouse
) -> None:
    cook, wide = (tiny_house.registry.adapter(name) for name in ("cook", WIDE))
    with CompletionsClient(str(client.base_url), api_key=KEY) as there:
        engine = OpenAIEngine(there, tiny_house.base)
        other = cook.model_copy(update={"weights_digest": "e" * 64})
        assert engine.lacking([cook, wide]) == {}
        assert engine.lacking([other, cook.model_copy(update={"name": "nobody"})]) == {
            "cook": "has other weights for",
            "nobody": "offers no adapter",
        }
        assert engine.refused([cook, wide]).keys() == {WIDE}
        here, away = engine.count_tokens(TOPICS["cook"][0])
        assert here == away


def test_a_session_and_constraints_are_kept_by_a_real_server(client: httpx.Client) -> None:
    text = TOPICS["cook"][0] + " a"
    denied = client.post(CHAT, json=body("auto", text, traitroute={"deny": ["cook"]}))
    assert denied.headers["x-traitroute-adapter"] == denied.json()["model"].replace("tiny", "base")
    assert denied.json()["model"] != "cook"
    refused = client.post(CHAT, json=body("auto", text), headers={"x-traitroute-deny": "cok"})
    assert "did you mean 'cook'" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/completions", "/tokenize", "/invocations"])
def test_a_denied_adapter_does_not_answer_by_its_name(client: httpx.Client, path: str) -> None:
    asked = {**body("cook", "hi"), "prompt": "hi"}
    denied = {"x-traitroute-deny": "cook"}
    named = {"x-traitroute-model": "cook"} if path == "/invocations" else {}
    refused = client.post(path, json=asked, headers=denied | named)
    assert refused.status_code == 403
    assert "x-traitroute-deny" in refused.json()["error"]["message"]
    assert client.post(CHAT, json=body("coder", "hi"), headers=denied).status_code == 200


def test_what_says_nothing_is_answered_by_base(client: httpx.Client) -> None:
    tokens = {"model": "auto", "prompt": [5, 6, 7], "max_tokens": 4}
    system = body("auto", "") | {"messages": [{"role": "system", "content": TOPICS["cook"][0]}]}
    for path, asked in ((CHAT, body("auto", ".")), (CHAT, system), ("/v1/completions", tokens)):
        response = client.post(path, json=asked)
        assert response.status_code == 200
        assert response.json()["model"] == "tiny"
        assert response.headers["x-traitroute-reason"].startswith("no-text: ")


def test_half_a_character_is_refused(client: httpx.Client) -> None:
    for model in ("auto", "cook", "tiny"):
        content = json.dumps(body(model, "eggs \ud83d")).encode()
        headers = {"content-type": "application/json"}
        refused = client.post(CHAT, content=content, headers=headers)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "messages.0.content"


def test_an_explained_decision_is_in_the_header_and_behind_the_key(client: httpx.Client) -> None:
    request = body("auto", TOPICS["cook"][0], traitroute={"explain": True})
    response = client.post(CHAT, json=request)
    told = json.loads(base64.urlsafe_b64decode(response.headers["x-traitroute-decision"]))
    assert told["decision"]["adapter"] == response.json()["model"] == "cook"
    path = f"/v1/decisions/{response.headers['x-traitroute-decision-id']}"
    # Each API server process keeps its own: one of a few requests meets the right one.
    found = [client.get(path, headers={"connection": "close"}) for _ in range(12)]
    assert {r.status_code for r in found} <= {200, 404}
    assert any(r.status_code == 200 and r.json()["adapter"] == "cook" for r in found)
    assert client.get(path, headers={"authorization": ""}).status_code == 401


def test_the_servers_metrics_add_up_what_all_its_processes_routed(client: httpx.Client) -> None:
    def routed() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith("traitroute_decisions_total"))

    before = routed()
    for i in range(10):
        headers = {"connection": "close"}
        answer(client.post(CHAT, json=body("auto", TOPICS["cook"][i % 3]), headers=headers))
    assert routed() == before + 10
    assert "traitroute_routing_seconds_bucket" in client.get("/metrics").text


@pytest.mark.parametrize("content", [b"not json", b'{"model": "auto"}', b'{"model": "auto", "messages": []}'])
def test_a_body_without_a_request_is_the_clients_error(client: httpx.Client, content: bytes) -> None:
    response = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500
    assert "error" in response.json()


def test_an_adapter_too_wide_for_the_server_is_refused_by_name(client: httpx.Client) -> None:
    response = client.post(CHAT, json=body("wide", "hello"))
    assert response.status_code == 400
    assert "rank 16 is greater than max_lora_rank 8" in response.json()["error"]["message"]
    assert client.get("/health").status_code == 200


def test_what_vllm_would_serve_in_part_is_refused_by_name(client: httpx.Client) -> None:
    response = client.post(CHAT, json=body("half", "hello"))
    assert response.status_code == 400
    assert "it changes _orig_mod.model.layers.1." in response.json()["error"]["message"]


@pytest.mark.parametrize("model", ["auto", "wide"])
def test_without_the_api_key_nothing_is_routed_or_loaded(client: httpx.Client, model: str) -> None:
    keyless = {"authorization": ""}
    response = client.post(CHAT, json=body(model, TOPICS["cook"][0]), headers=keyless)
    assert response.status_code == 401
    assert "x-traitroute-adapter" not in response.headers


def test_the_page_is_open_and_its_data_is_behind_the_key(client: httpx.Client) -> None:
    keyless = {"authorization": ""}
    page = client.get("/traits", headers=keyless)
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert client.get("/traits/page.js", headers=keyless).status_code == 200
    assert client.get("/v1/traits", headers=keyless).status_code == 401


def test_an_adapter_added_over_http_answers_from_every_server_process(
    client: httpx.Client, tiny_house: TinyHouse
) -> None:
    late = save_adapter(tiny_house.base, tiny_house.folder / "late", seed=50)
    new = {"name": "late", "uri": str(late)}
    admin = {"x-traitroute-admin-key": ADMIN}
    assert client.post("/v1/adapters", json=new).status_code == 401
    assert client.post("/v1/adapters", json=new, headers=admin).status_code == 201
    time.sleep(SEEN_WITHIN_S)
    said = {answer(client.post(CHAT, json=body("late", "hello"))) for _ in range(12)}
    assert len(said) == 1
    assert said != {answer(client.post(CHAT, json=body("base", "hello")))}
    assert client.delete("/v1/adapters/late", headers=admin).json()["deleted"] is True
    time.sleep(SEEN_WITHIN_S)
    statuses = {client.post(CHAT, json=body("late", "hello")).status_code for _ in range(12)}
    assert statuses == {404}


def test_mcp_is_answered_by_any_process_and_only_with_the_key(client: httpx.Client) -> None:
    pytest.importorskip("mcp", reason="needs MCP: pip install 'traitroute[skills]'")
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"accept": "application/json, text/event-stream", "connection": "close"}
    for _ in range(8):
        told = client.post("/mcp", json=ask, headers=headers).json()["result"]["tools"]
        assert "plan_skills" in {tool["name"] for tool in told}
    keyless = headers | {"authorization": ""}
    assert client.post("/mcp", json=ask, headers=keyless).status_code == 401
    for origin, status in ((PAGE, 200), ("http://localhost", 200), ("https://b.example", 403)):
        told = client.post("/mcp", json=ask, headers=headers | {"origin": origin})
        assert told.status_code == status, origin


def test_the_example_client_runs_against_the_server(client: httpx.Client) -> None:
    pytest.importorskip("openai", reason="needs the client: pip install 'traitroute[client]'")
    example = Path(__file__).parents[2] / "examples" / "openai_client.py"
    told = {"OPENAI_BASE_URL": f"{client.base_url}/v1", "OPENAI_API_KEY": KEY}
    command = [sys.executable, str(example), TOPICS["cook"][0]]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "adapter: cook (the answer names cook)" in done.stdout
    assert "streamed: " in done.stdout


def test_a_server_that_dies_tells_its_last_words(tmp_path: Path) -> None:
    registry = Registry.create(tmp_path / "registry.db")
    log_path = tmp_path / "server.log"
    with (
        pytest.raises(ServerError, match="no-such-flag"),
        running_server(registry.path, "tiny", [], log_path=log_path, options=["--no-such-flag"]),
    ):
        pass
