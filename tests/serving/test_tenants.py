"""What a tenant is told of what it may not use: nothing, by whichever way it asks.

Each way in is tried twice, once by the name of an adapter that is there and not the tenant's, and once by a name that
never was: the answers are the same, letter by letter but for the name, and no other name is in them. Tried on the
gateway, the embedded server and a stand of the routes that vLLM's plugin adds, each with real routing and a real key
check; in vLLM's own app in `test_vllm_tenants.py`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.api_routes import api_routes, is_for_tenants, open_paths
from traitroute.serving.http import tenants
from traitroute.serving.http.keys import ApiKeys, KeyCheck
from traitroute.serving.http.tenants import TenantsFile, key_hash
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.middleware.middleware import ENDPOINTS, UNROUTED
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

OPERATOR, COOK, FLYER, GUEST = "operators-key", "cooks-key", "flyers-key", "guests-key"
TENANTS = f"""
[tenants.cooks]
keys = ["{key_hash(COOK)}"]
tags = ["kitchen"]

[tenants.flyers]
keys = ["{key_hash(FLYER)}"]
adapters = ["pilot"]

[tenants.guests]
keys = ["{key_hash(GUEST)}"]
adapters = []
"""
HIDDEN, ABSENT = "pilot", "pilos"
"""An adapter that cooks may not use, and a name next to it that no adapter has."""
FOREIGN = ("pilot", "idle")
"""What no answer to a cook may hold."""
MESSAGES = [{"role": "user", "content": "rocket fuel thrust orbit mars moon"}]
JSON_RPC = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}


def digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


class EveryAdapter:
    """A loader that has all adapters."""

    async def ensure(self, name: str) -> None:
        """Nothing is to be done."""


async def _echo(request: Request) -> Response:
    return JSONResponse({"asked": (await request.body()).decode()})


def _stand(registry: Registry) -> Starlette:
    """What the plugin adds to vLLM's app, before an app that answers whatever it is asked."""
    state = ServerState(loader=EveryAdapter(), invocations_header="x-sagemaker-adapter")
    state.snapshot = RegistrySnapshot.read(registry, base_names=state.base_names)
    app = Starlette(
        routes=[*api_routes(state), Route("/{path:path}", _echo, methods=["POST"])],
        middleware=[
            Middleware(
                KeyCheck,
                keys=ApiKeys([OPERATOR], TenantsFile.from_environment()),
                message="a key is wanted",
                open_paths=open_paths(),
                is_for_tenants=is_for_tenants,
            ),
            Middleware(RoutingMiddleware, state=state),
        ],
    )
    app.state.ours = state
    return app


def write_tenants(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    path = folder / "tenants.toml"
    path.write_text(TENANTS)
    patch.setenv("TRAITROUTE_TENANTS", str(path))
    patch.setenv("TRAITROUTE_ADMIN_KEY", "admins-key")
    return path


@pytest.fixture
def tenants_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_tenants(tmp_path, monkeypatch)


@pytest.fixture(scope="module", params=["stand", "gateway", "embedded"])
def server(request: Any, filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of chef, of the tag kitchen, pilot and idle, with an operator's key and three tenants."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        write_tenants(tmp_path_factory.mktemp("tenants"), patch)
        opened = stack.enter_context(Registry.open(filled, read_only=True))
        if request.param == "stand":
            app = _stand(opened)
        else:
            from . import conftest

            app = getattr(conftest, f"_{request.param}")(opened, OPERATOR, ())
        yield stack.enter_context(TestClient(app, raise_server_exceptions=False))


@pytest.fixture
def stand(tenants_file: Path, filled: Path) -> Iterator[TestClient]:
    """A server whose app behind shows what it was asked."""
    with Registry.open(filled, read_only=True) as opened, TestClient(_stand(opened)) as client:
        yield client


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}


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
    for spelling in (digest(name), digest(name)[:12], digest(name)[:8]):
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
    **{path: ("GET", path, None, {}) for path in ("/metrics", "/v1/adapters", "/v1/lift", "/traits")},
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


def routed(server: TestClient, key: str, text: str, **more: Any) -> Any:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    return server.post("/v1/chat/completions", json=body, headers=bearer(key))


def test_auto_chooses_among_what_is_the_tenants(stand: TestClient, text_of: Callable[[str], str]) -> None:
    space, cooking = text_of("space"), text_of("cooking")
    chosen = {
        key: [routed(stand, key, text).headers["x-traitroute-adapter"] for text in (space, cooking)]
        for key in (OPERATOR, COOK, FLYER, GUEST)
    }
    assert chosen[OPERATOR] == ["pilot", "chef"]
    assert chosen[COOK] == ["base", "chef"]
    assert chosen[FLYER] == ["pilot", "base"]
    assert chosen[GUEST] == ["base", "base"]
    reason = routed(stand, COOK, space).headers["x-traitroute-reason"]
    assert "pilot" not in reason


def test_who_names_no_model_is_answered_by_base(stand: TestClient) -> None:
    for model in ({}, {"model": None}, {"model": ""}):
        asked = stand.post("/v1/score", json={"text_1": "x", **model}, headers=bearer(COOK))
        assert json.loads(asked.json()["asked"])["model"] == "base"
    assert stand.post("/v1/score", content=b"model=pilot", headers=bearer(COOK)).status_code == 400
    twice = b'{"model": "pilot", "text_1": "x", "model": "chef"}'
    asked = stand.post("/v1/score", content=twice, headers=bearer(COOK))
    assert "pilot" not in asked.json()["asked"]


def test_a_tenant_may_ask_for_its_own(stand: TestClient) -> None:
    for path in sorted({*ENDPOINTS, *UNROUTED} - {"/invocations"}):
        body = {"model": "chef", "messages": MESSAGES, "prompt": "x", "input": "x"}
        asked = stand.post(path, json=body, headers=bearer(COOK))
        assert asked.status_code == 200, path
        assert json.loads(asked.json()["asked"])["model"] == "chef"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/metrics",
            "/v1/lift",
            "/v1/load_lora_adapter",
            "/sleep",
            "/collective_rpc",
            "/server_info",
            "/v1/responses/x",
        ),
        *("//v1/models", "/v1/models/../metrics", "/v1/score/x", "/V1/MODELS", "/v1/audio/transcriptions", "/"),
    ],
)
def test_what_is_not_made_for_tenants_is_closed_to_them(stand: TestClient, path: str) -> None:
    url = f"http://testserver{path}"
    for method in ("GET", "POST"):
        assert stand.request(method, url, headers=bearer(COOK)).status_code in (403, 404)
        assert stand.request(method, url, headers=bearer("wrong")).status_code == 401
    assert stand.request("POST", url, headers=bearer(OPERATOR)).status_code == 200


def test_a_session_is_one_tenants(stand: TestClient, text_of: Callable[[str], str]) -> None:
    session = {"traitroute": {"session": "the same"}}
    assert routed(stand, FLYER, text_of("space"), **session).headers["x-traitroute-adapter"] == "pilot"
    again = routed(stand, FLYER, text_of("cooking"), **session)
    assert again.headers["x-traitroute-reason"].startswith("session: ")
    other = routed(stand, COOK, text_of("cooking"), **session)
    assert other.headers["x-traitroute-adapter"] == "chef"
    assert not other.headers["x-traitroute-reason"].startswith("session: ")


def test_an_explanation_is_for_whom_it_was_made(stand: TestClient, text_of: Callable[[str], str]) -> None:
    made = routed(stand, FLYER, text_of("space"), traitroute={"explain": True})
    path = f"/v1/decisions/{made.headers['x-traitroute-decision-id']}"
    assert stand.get(path, headers=bearer(FLYER)).json()["adapter"] == "pilot"
    assert stand.get(path, headers=bearer(OPERATOR)).status_code == 200
    refused = stand.get(path, headers=bearer(COOK))
    unknown = stand.get("/v1/decisions/none", headers=bearer(COOK))
    assert (refused.status_code, refused.text) == (404, unknown.text)


def test_a_decision_on_anothers_adapter_is_none(
    registry: Registry, tenants_file: Path, text_of: Callable[[str], str]
) -> None:
    with TestClient(_stand(registry)) as stand:
        tokens = [
            routed(stand, FLYER, text_of("space")).headers["x-traitroute-decision-token"],
            stand.post("/v1/skills/select", json={"task": text_of("space")}, headers=bearer(FLYER)).json()["decision"],
        ]
        for token in tokens:
            body = {"decision": token, "reward": 0}
            refused = stand.post("/v1/feedback", json=body, headers=bearer(COOK))
            forged = stand.post("/v1/feedback", json={"decision": "e30.e30", "reward": 0}, headers=bearer(COOK))
            assert (refused.status_code, refused.text) == (404, forged.text)
            assert stand.post("/v1/feedback", json=body, headers=bearer(FLYER)).json()["skill"] == "pilot"
        first, second = (
            stand.post("/v1/skills/select", json={"task": text}, headers=bearer(COOK)).json()["decision"]
            for text in ("simmer the soup", "bake the bread")
        )
        worse = {"decision": first, "better_than": tokens[0]}
        refused = stand.post("/v1/feedback", json=worse, headers=bearer(COOK))
        forged = stand.post("/v1/feedback", json=worse | {"better_than": "e30.e30"}, headers=bearer(COOK))
        assert (refused.status_code, refused.text) == (404, forged.text)
        worse["better_than"] = second
        assert stand.post("/v1/feedback", json=worse, headers=bearer(COOK)).status_code == 200
        own = routed(stand, COOK, text_of("cooking")).headers["x-traitroute-decision-token"]
        given = {"decision": own, "reward": 1}
        assert stand.post("/v1/feedback", json=given, headers=bearer(COOK)).status_code == 200
    assert {kept.adapter for kept in registry.feedback()} == {"pilot", "chef"}


def test_a_tenant_may_have_a_control_group_of_its_own(
    tenants_file: Path, filled: Path, text_of: Callable[[str], str]
) -> None:
    tenants_file.write_text(TENANTS.replace('adapters = ["pilot"]', 'adapters = ["*"]\nholdback = 0.5'))
    with Registry.open(filled, read_only=True) as opened, TestClient(_stand(opened)) as server:
        text = text_of("space")
        arms = {
            key: {routed(server, key, f"{text} {i}").headers["x-traitroute-arm"] for i in range(20)}
            for key in (FLYER, OPERATOR, COOK)
        }
    assert arms == {FLYER: {"auto", "control"}, OPERATOR: {"auto"}, COOK: {"auto"}}


def test_a_tag_that_only_others_adapters_have_is_like_none(stand: TestClient, text_of: Callable[[str], str]) -> None:
    told = [
        routed(stand, FLYER, text_of("cooking"), traitroute={"tags": [tag]}).headers["x-traitroute-reason"]
        for tag in ("kitchen", "nothing")
    ]
    assert told[0] == told[1]


def test_a_change_of_the_file_is_in_force_at_once_and_a_slip_changes_nothing(
    tenants_file: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "EVERY_S", 0.0)
    skills = lambda key: server.get("/v1/skills", headers=bearer(key))  # noqa: E731
    with Registry.open(filled, read_only=True) as opened, TestClient(_stand(opened)) as server:
        assert [s["name"] for s in skills(COOK).json()["skills"]] == ["chef"]
        tenants_file.write_text(TENANTS.replace('tags = ["kitchen"]', 'adapters = ["idle"]'))
        assert [s["name"] for s in skills(COOK).json()["skills"]] == ["idle"]
        for slip in ("[tenants.cooks", '[tenants.cooks]\nadapters = "*"', TENANTS + "[tenants.x]"):
            tenants_file.write_text(slip)
            assert [s["name"] for s in skills(COOK).json()["skills"]] == ["idle"]
        tenants_file.write_text("")
        assert skills(COOK).status_code == 401
        tenants_file.write_text(TENANTS)
        assert [s["name"] for s in skills(COOK).json()["skills"]] == ["chef"]


def test_without_a_file_every_key_may_all(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAITROUTE_TENANTS", raising=False)
    with Registry.open(filled, read_only=True) as opened, TestClient(_stand(opened)) as server:
        assert len(server.get("/v1/skills", headers=bearer(OPERATOR)).json()["skills"]) == 3
        assert server.get("/v1/skills", headers=bearer(COOK)).status_code == 401
        assert server.post("/metrics", headers=bearer(OPERATOR)).status_code == 200


def test_the_operators_key_that_the_file_lists_is_its_tenants(tenants_file: Path, filled: Path) -> None:
    tenants_file.write_text(TENANTS.replace(key_hash(COOK), key_hash(OPERATOR)))
    with Registry.open(filled, read_only=True) as opened, TestClient(_stand(opened)) as server:
        assert [s["name"] for s in server.get("/v1/skills", headers=bearer(OPERATOR)).json()["skills"]] == ["chef"]
