"""Attacks that worked once, tried on all three servers: by raw requests and by adapters made to harm.

Each server is a real process with keys set: vLLM with the plugin, the gateway before a vLLM that loads whatever it is
told to, and the embedded server. `python -m pytest tests/serving/test_intruders.py -v` prints what was tried on which.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from safetensors.numpy import load_file, save_file
from traitroute.adapters import Registry
from traitroute.serving.vllm import RunningServer

from ..servers import ADMIN, KEY, RETIRED, SOUND, TinyHouse, running_traitroute

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]

CHAT = "/v1/chat/completions"
HANG_S = 5
"""How long a refusal may take on a busy machine: what hung did so for 20 s and more."""


@dataclass(frozen=True)
class Target:
    """A running server; `named` is one of its adapters and `plain` what that adapter answers."""

    kind: str
    url: str
    folder: Path
    named: str
    plain: str

    def ask(self, model: str, *, key: str | None = KEY, **headers: str) -> httpx.Response:
        """One question, always the same."""
        sent = headers | ({"authorization": f"Bearer {key}"} if key else {})
        return httpx.post(self.url + CHAT, json=question(model), headers=sent, timeout=60)


def question(model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Write a Python function"}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8}


def said(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


@pytest.fixture(scope="module", params=["vllm", "gateway", "embedded"])
def target(request: pytest.FixtureRequest, tiny_house: TinyHouse) -> Iterator[Target]:
    with ExitStack() as stack:
        if request.param == "embedded":
            url = stack.enter_context(_embedded(tiny_house)).base_url
        else:
            url = request.getfixturevalue(f"{request.param}_server").base_url
        asked = Target(request.param, url, tiny_house.folder, "coder", "")
        yield replace(asked, plain=said(asked.ask("coder")))


def _embedded(house: TinyHouse) -> AbstractContextManager[RunningServer]:
    command = ["serve", str(house.base), "--registry", str(house.registry.path), "--engine", "transformers"]
    command += ["--max-model-len", "256", "--api-key-env", "A_KEY"]
    variables = {"A_KEY": KEY, "TRAITROUTE_ADMIN_KEY": ADMIN, "TRAITROUTE_ALLOWED_SOURCES": str(house.folder)}
    return running_traitroute(command, house.folder / "embedded.log", variables)


def raw_status(target: Target, method: str, path: str, body: bytes, key: str | None) -> int:
    """The status of a request whose path is sent as it is: clients would tidy it up."""
    place = urlsplit(target.url)
    head = [f"{method} {path} HTTP/1.1", f"host: {place.netloc}", "connection: close"]
    head += ["content-type: application/json", f"content-length: {len(body)}"]
    head += [f"authorization: Bearer {key}"] if key else []
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        line = connection.makefile("rb").readline()
    return int(line.split()[1])


LOADING = ["load_lora_adapter", "unload_lora_adapter"]
CLIMBING = [
    "/x/../v1/{}",
    "/v1/./{}",
    "/x/%2e%2e/v1/{}",
    "/x/%252e%252e/v1/{}",
    "/v1//{}",
    "/v1/{}",
]


@pytest.mark.parametrize("path", [c.format(what) for c in CLIMBING for what in LOADING])
def test_nobody_changes_the_weights_behind_a_served_name(target: Target, path: str) -> None:
    listing = httpx.get(target.url + "/v1/models", headers={"authorization": f"Bearer {KEY}"})
    with Registry.open(target.folder / "registry.db", read_only=True) as registry:
        other = registry.weights.path(registry.adapter("cook").weights_digest)
        digest = registry.adapter(target.named).weights_digest[:12]
    for name in (target.named, f"{target.named}@{digest}"):
        body = {"lora_name": name, "lora_path": str(other), "load_inplace": True}
        status = raw_status(target, "POST", path, json.dumps(body).encode(), KEY)
        assert 400 <= status < 500
    assert said(target.ask(target.named)) == target.plain
    again = httpx.get(target.url + "/v1/models", headers={"authorization": f"Bearer {KEY}"})
    names = [[card["id"] for card in each.json()["data"]] for each in (listing, again)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/update_weights_from_disk"),
        ("POST", "/sleep"),
        ("POST", "/collective_rpc"),
        ("POST", "/load_lora_adapter"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/pull"),
        ("POST", "/v1/x/../../../other/secret"),
        ("GET", "/v1/%2e%2e/server_info"),
    ],
)
def test_a_user_reaches_nothing_that_manages_the_engine(target: Target, method: str, path: str) -> None:
    assert raw_status(target, method, path, b"{}", KEY) in (400, 401, 404, 405)


@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        f"{CHAT}/",
        f"/{CHAT}",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/models",
        "/invocations",
        "/invocations/",
        "//invocations",
        "/tokenize",
        "/detokenize",
        "/pooling",
        "/classify",
        "/score",
        "/rerank",
        "/inference/v1/generate",
        "/v1/skills/select",
        "/mcp",
    ],
)
def test_every_inference_path_asks_for_a_key(target: Target, path: str) -> None:
    for model in ("auto", target.named):
        body = json.dumps({**question(model), "prompt": "x", "input": "x"}).encode()
        assert raw_status(target, "POST", path, body, None) in (401, 403, 404, 405)
        assert raw_status(target, "POST", path, body, "wrong") in (401, 403, 404, 405)


def test_a_disabled_adapter_neither_answers_nor_is_listed(target: Target) -> None:
    with Registry.open(target.folder / "registry.db", read_only=True) as registry:
        runtime = f"{RETIRED}@{registry.adapter(RETIRED).weights_digest[:12]}"
    for name in (RETIRED, runtime, f"{RETIRED}:latest"):
        assert target.ask(name).status_code in (400, 404)
    listing = httpx.get(target.url + "/v1/models", headers={"authorization": f"Bearer {KEY}"})
    assert RETIRED not in listing.text


def test_an_adapter_that_is_denied_does_not_answer_by_its_name_either(target: Target) -> None:
    denied = target.ask(target.named, **{"x-traitroute-deny": target.named})
    assert denied.status_code == 403
    assert "deny" in denied.json()["error"]["message"]
    assert target.ask(target.named, **{"x-traitroute-allow": "cook"}).status_code == 403
    assert said(target.ask(target.named, **{"x-traitroute-allow": target.named})) == target.plain


def _renamed(old: str, new: str) -> Any:
    return lambda config, tensors: (
        config,
        {name.replace(old, new): tensor for name, tensor in tensors.items()},
    )


def _configured(**changes: Any) -> Any:
    return lambda config, tensors: (config | changes, tensors)


def _renamed_one(old: str, new: str) -> Any:
    def change(config: Any, tensors: Any) -> Any:
        first = next(name for name in tensors if old in name)
        return config, {(n.replace(old, new) if n == first else n): t for n, t in tensors.items()}

    return change


MADE_TO_HARM = {
    "modules that are flags": _configured(target_modules=["!", "--host=0.0.0.0", "--api-key=x"]),
    "a pattern without end": _configured(target_modules="(.*a){20}(.*b){20}(x+x+)+y"),
    "a rank that takes all memory": _configured(r=4096, rank_pattern={"zzz": 8}),
    "a rank beyond integers": _configured(r=2**70),
    "layers that are no numbers": _configured(layers_to_transform=[1, "a"]),
    "tensors of a compiled model": _renamed("base_model.model.", "base_model.model._orig_mod."),
    "tensors of a vision model": _renamed("model.layers", "language_model.layers"),
    "an adapter's name in the tensors": _renamed("lora_A.weight", "lora_A.default.weight"),
    "one tensor that is no LoRA": _renamed_one("lora_A.weight", "embed_tokens.weight"),
    "a name without end": _renamed_one("q_proj", "q" * 60_000),
    "a layer that is not there": _renamed("layers.1.", "layers.17."),
}


@pytest.mark.parametrize("harm", MADE_TO_HARM)
def test_an_adapter_made_to_harm_is_refused_at_once(target: Target, harm: str) -> None:
    folder = target.folder / "harmful" / target.kind / harm.replace(" ", "-").replace("'", "")
    folder.mkdir(parents=True)
    sound = target.folder / SOUND
    config = json.loads((sound / "adapter_config.json").read_bytes())
    config, tensors = MADE_TO_HARM[harm](config, load_file(sound / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    headers = {"authorization": f"Bearer {KEY}", "x-traitroute-admin-key": ADMIN}
    body = {"name": folder.name, "uri": str(folder), "same_base": True}
    start = time.monotonic()
    refused = httpx.post(f"{target.url}/v1/adapters", json=body, headers=headers, timeout=60)
    if refused.status_code < 400:
        httpx.delete(f"{target.url}/v1/adapters/{folder.name}", headers=headers)
    assert refused.status_code == 400, refused.text
    assert time.monotonic() - start < HANG_S
    assert refused.json()["error"]["message"].isprintable()
    assert said(target.ask(target.named)) == target.plain
    assert target.ask(folder.name).status_code in (400, 404)


def test_no_adapter_bears_the_name_of_the_base_model(target: Target) -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-traitroute-admin-key": ADMIN}
    body = {"name": "tiny", "uri": str(target.folder / SOUND), "same_base": True}
    refused = httpx.post(f"{target.url}/v1/adapters", json=body, headers=headers, timeout=60)
    if refused.status_code < 400:
        httpx.delete(f"{target.url}/v1/adapters/tiny", headers=headers)
    assert refused.status_code == 400
    assert "base model" in refused.json()["error"]["message"]
