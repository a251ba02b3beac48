"""What a tenant is told of what it may not use: nothing, by whichever way it asks.

Each way in is tried twice, once by the name of an adapter that is there and not the tenant's, and once by a name that
never was: the answers are the same, letter by letter but for the name, and no other name is in them. Tried on the
gateway, the embedded server and a stand of the routes that vLLM's plugin adds, each with real routing and a real key
check; in vLLM's own app in `../test_vllm_tenants.py`.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from starlette.testclient import TestClient
from traitroute.adapters.adapter import serving_id
from traitroute.serving.middleware.middleware import ENDPOINTS, UNROUTED

from .conftest import COOK, FLYER, GUEST, MESSAGES, OPERATOR, bearer

HIDDEN, ABSENT = "pilot", "pilos"
"""An adapter that cooks may not use, and a name next to it that no adapter has."""
FOREIGN = ("pilot", "idle")
"""What no answer to a cook may hold."""
JSON_RPC = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}


def digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def tool(called: str, **arguments: Any) -> dict[str, Any]:
    return rpc("tools/call", name=called, arguments=arguments)


Asked = tuple[str, str, Any, dict[str, str]]
"""Method, path, body and headers."""


def asked_for(model: str) -> Iterator[tuple[str, Asked]]:
    """Every path where a model is named, for this one."""
    texts = {"messages": MESSAGES, "prompt": "x", "input": "x"}
    for path in sorted({*ENDPOINTS, *UNROUTED}):
        yield f"model at {path}", ("POST", path, {"model": model, **texts}, {})
    yield "model in a header", ("POST", "/invocations", texts, {"x-sagemaker-adapter": model})
    yield "model in our header", ("POST", "/invocations", texts, {"x-traitroute-model": model})
    yield "a listed model", ("GET", f"/v1/models/{model}", None, {})


def ways(name: str) -> Iterator[tuple[str, Asked]]:
    """Every way to ask for, or about, an adapter by its name."""
    chat = {"messages": MESSAGES}
    yield from asked_for(name)
    spellings = {
        "NAME@digest": f"{name}@{digest(name)[:12]}",
        "NAME@VERSION": f"{name}@2",
        "NAME:latest": f"{name}:latest",
        "BASE:NAME": f"base:{name}",
        "Name": name.capitalize(),
        "its weights' digest": digest(name),
        "its number in vLLM": str(serving_id(digest(name))),
    }
    for what, spelling in spellings.items():
        yield what, ("POST", "/v1/chat/completions", {"model": spelling, **chat}, {})
        yield f"{what} as a skill", ("GET", f"/v1/skills/{spelling}", None, {})
        yield f"{what} as a listed model", ("GET", f"/v1/models/{spelling}", None, {})
    for field in ("allow", "deny"):
        auto = {"model": "auto", **chat}
        yield f"{field} by header", ("POST", "/v1/chat/completions", auto, {f"x-traitroute-{field}": name})
        limited = auto | {"traitroute": {field: [name]}}
        yield f"{field} in the body", ("POST", "/v1/chat/completions", limited, {})
        both = {"model": name, **chat, "traitroute": {field: [name]}}
        yield f"{field} beside its name", ("POST", "/v1/chat/completions", both, {})
        select = {"task": "rocket fuel", "constraints": {field: [name]}}
        yield f"{field} to select", ("POST", "/v1/skills/select", select, {})
        yield f"{field} to plan", ("POST", "/v1/skills/plan", {"steps": [select]}, {})
        yield f"{field} over MCP", ("POST", "/mcp", tool("select_skill", **select), JSON_RPC)
    for field in ("lora_name", "adapter_id", "lora_path", "MODEL", "models"):
        yield f"beside model, {field}", ("POST", "/v1/chat/completions", {"model": "base", **chat, field: name}, {})
    yield "a skill", ("GET", f"/v1/skills/{name}", None, {})
    for listed in ("skills", "traits", "matrix"):
        yield f"{listed} after it", ("GET", f"/v1/{listed}?after={name}", None, {})
    yield "a job", ("GET", f"/v1/jobs/{name}.{digest(name)[:8]}.1", None, {})
    for method, path in (("GET", ""), ("DELETE", ""), ("DELETE", "/replacement")):
        yield f"{method} of the administrator", (method, f"/v1/adapters/{name}{path}", None, {})
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"):
        yield path, ("POST", path, {"lora_name": name, "lora_path": "/x", "load_inplace": True}, {})
    yield "describe_skill", ("POST", "/mcp", tool("describe_skill", name=name), JSON_RPC)
    yield "a tool of its name", ("POST", "/mcp", tool(name), JSON_RPC)
    yield "a resource", ("POST", "/mcp", rpc("resources/read", uri=f"skill://{name}"), JSON_RPC)
    yield "a page of resources", ("POST", "/mcp", rpc("resources/list", cursor=name), JSON_RPC)


WAYS = {what: (asked, absent) for (what, asked), (_, absent) in zip(ways(HIDDEN), ways(ABSENT), strict=True)}


def answer(server: TestClient, asked: Asked, key: str) -> tuple[int, str]:
    method, path, body, headers = asked
    given = server.request(method, path, json=body, headers=bearer(key) | headers)
    seen = {name: value for name, value in given.headers.items() if name not in ("content-length", "date")}
    return given.status_code, json.dumps(seen) + given.text


def without(text: str, name: str) -> str:
    whole = digest(name)
    # Long names are quoted in part: the first and last characters.
    for spelling in (whole, whole[:12], whole[:8], whole[-13:], str(serving_id(whole))):
        text = text.replace(spelling, "DIGEST")
    return text.replace(name, "NAME").replace(name.capitalize(), "Name")


@pytest.mark.parametrize("what", WAYS)
def test_what_a_tenant_may_not_use_looks_like_what_never_was(server: TestClient, what: str) -> None:
    hidden, absent = WAYS[what]
    (status, told), (same, of_nothing) = answer(server, hidden, COOK), answer(server, absent, COOK)
    assert (status, without(told, HIDDEN)) == (same, without(of_nothing, ABSENT))
    # What the app behind echoes is what it was asked, which may be base with a constraint that excludes the name.
    assert not any(name in without(told, HIDDEN) for name in FOREIGN)


@pytest.mark.parametrize("what", [what for what, _ in asked_for("x")])
def test_a_hidden_adapter_answers_nowhere(server: TestClient, what: str) -> None:
    status, told = answer(server, WAYS[what][0], COOK)
    assert 400 <= status < 500, told


LISTS: dict[str, Asked] = {
    **{
        path: ("GET", path, None, {})
        for path in ("/v1/models", "/v1/skills", "/v1/traits", "/v1/matrix", "/v1/jobs", "/v1/openapi.json", "/health")
    },
    **{path: ("GET", path, None, {}) for path in ("/metrics", "/v1/adapters", "/v1/lift", "/v1/canaries", "/traits")},
    "select": ("POST", "/v1/skills/select", {"task": "rocket fuel thrust orbit mars moon", "k": 10}, {}),
    "plan": ("POST", "/v1/skills/plan", {"steps": [{"task": "rocket fuel thrust"}, {"task": "simmer soup"}]}, {}),
    "explain": (
        "POST",
        "/v1/chat/completions",
        {"model": "auto", "messages": MESSAGES, "traitroute": {"explain": True}},
        {},
    ),
    "nonsense": ("GET", "/v1/nonsense", None, {}),
    "tools": ("POST", "/mcp", rpc("tools/list"), JSON_RPC),
    "resources": ("POST", "/mcp", rpc("resources/list"), JSON_RPC),
    "templates": ("POST", "/mcp", rpc("resources/templates/list"), JSON_RPC),
    "trait map": ("POST", "/mcp", rpc("resources/read", uri="traits://map"), JSON_RPC),
    "list_skills": ("POST", "/mcp", tool("list_skills"), JSON_RPC),
    "select_skill": ("POST", "/mcp", tool("select_skill", task="rocket fuel thrust orbit"), JSON_RPC),
    "prompt": ("POST", "/mcp", rpc("prompts/get", name="work_by_skills", arguments={"goal": "x"}), JSON_RPC),
    "a near name": (
        "POST",
        "/v1/chat/completions",
        {"model": "auto", "messages": MESSAGES},
        {"x-traitroute-allow": "pilo"},
    ),
    "a near skill": ("GET", "/v1/skills/pilo", None, {}),
}


@pytest.mark.parametrize("key", [COOK, GUEST])
@pytest.mark.parametrize("what", LISTS)
def test_no_list_names_what_a_tenant_may_not_use(server: TestClient, what: str, key: str) -> None:
    status, told = answer(server, LISTS[what], key)
    # The embedded server's decoder is a stand-in that generates nothing.
    assert status != 500 or what in ("explain", "a near name"), told
    # In schemas the word is that of a verdict.
    words = [name for name in FOREIGN if name != "idle" or what not in ("/v1/openapi.json", "tools")]
    assert not any(word in told for word in [*words, *map(digest, FOREIGN)])
    if key == GUEST:
        assert "chef" not in told


def test_each_sees_its_own_and_the_operator_all(server: TestClient) -> None:
    everything = {OPERATOR: {"chef", "idle", "pilot"}, COOK: {"chef"}, FLYER: {"pilot"}, GUEST: set()}
    for key, own in everything.items():
        skills = server.get("/v1/skills", headers=bearer(key)).json()["skills"]
        assert {skill["name"] for skill in skills} == own
        listing = server.get("/v1/models", headers=bearer(key))
        if listing.status_code == 200:  # The stand has no list: vLLM's is in `test_vllm_tenants.py`.
            assert {card["id"] for card in listing.json()["data"]} - {"auto", "base", "tiny"} == own
    matrix = {key: server.get("/v1/matrix", headers=bearer(key)).json() for key in (OPERATOR, COOK, FLYER)}
    whole = matrix[OPERATOR]
    for key, name in ((COOK, "chef"), (FLYER, "pilot")):
        row = whole["skills"].index(name)
        assert matrix[key]["skills"] == [name]
        assert matrix[key]["gains"] == [whole["gains"][row]]
        assert matrix[key]["base"] == whole["base"]
    card = server.get("/v1/skills/chef", headers=bearer(COOK)).json()
    assert card == server.get("/v1/skills/chef", headers=bearer(OPERATOR)).json()
