"""Real servers on free ports: small upstreams that remember what they were asked, and gateways in front."""

import asyncio
import json
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from made_up_summary import made_up_summary
from safetensors.numpy import save_file
from starlette.types import Receive, Scope, Send
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.router import FitRequests, fit_profile
from traitroute.serving.engines.probe import TEXTS
from traitroute.serving.gateway import GatewayOptions, gateway_app

from ...servers import serving

BASE_NAME = "tiny"
TOPICS = {
    "coder": ["write a python function", "fix this compiler error", "what does this loop print"],
    "cook": ["how long do I boil eggs", "a recipe with rice and beans", "bake bread without yeast"],
    "critic": ["was the film any good", "review this novel", "is the acting convincing"],
}
CHAT = "/v1/chat/completions"
FLOOD = b"x" * 65536


class Upstream:
    """An OpenAI-compatible server in miniature; `loads` is None where it cannot load adapters."""

    def __init__(self, *names: str, base: str = BASE_NAME) -> None:
        self.base = base
        self.cards = [
            {"id": base, "root": base, "parent": None, "owned_by": "vllm"},
            *({"id": n, "root": None, "parent": base, "owned_by": "vllm"} for n in names),
        ]
        self.requests: list[dict[str, Any]] = []
        self.loads: list[dict[str, str]] | None = None
        self.idle: set[str] = set()
        self.probed: Counter[str] = Counter()
        self.gives_logprobs = True
        self.refusal: str | None = None
        self.status = 200
        self.forgetful = False
        self.redirect: str | None = None
        self.flooded = 0
        self.aborted = threading.Event()
        self.hold = threading.Event()
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, headers = scope["path"], [(k.decode(), v.decode()) for k, v in scope["headers"]]
        if path.endswith("/v1/models") and scope["method"] == "GET":
            await reply(send, {"object": "list", "data": self.cards}, self.status)
            return
        body = await read(receive)
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        if (probed := _probed(body)) is not None:
            self.probed[probed] += 1
            await reply(send, self._next_tokens(probed), 200)
            return
        self.requests.append({"method": scope["method"], "target": target, "headers": headers, "body": body})
        try:
            asked = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            await reply(send, {"error": {"message": "not a JSON object"}}, 400)
            return
        await self._answer(path, asked, receive, send)

    def _next_tokens(self, model: str) -> dict[str, Any]:
        """What comes next, as OpenAI's API says it: by an adapter in `idle`, and by base, other tokens are likely."""
        tokens = ("Yes", "No") if model == self.base or model.split("@")[0] in self.idle else ("No", "Yes")
        listed = [{"token": token, "logprob": -0.1 - 2.0 * i} for i, token in enumerate(tokens)]
        message = {"role": "assistant", "content": tokens[0]}
        if not self.gives_logprobs:
            return {"choices": [{"message": message, "logprobs": None}]}
        return {"choices": [{"message": message, "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}}]}

    async def _answer(self, path: str, asked: dict[str, Any], receive: Receive, send: Send) -> None:
        if self.redirect is not None:
            await send(start(307, [(b"location", self.redirect.encode())]))
            await send({"type": "http.response.body", "body": b""})
        elif path.endswith("load_lora_adapter"):
            await self._load(asked, send)
        elif asked.get("play") == "flood":
            await self._flood(send)
        elif asked.get("play") == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.aborted.set()
        elif asked.get("stream") is True:
            await self._stream(receive, send)
        elif self.forgetful:
            await reply(send, {"error": {"message": "no such model"}}, 404)
        else:
            while self.hold.is_set():
                await asyncio.sleep(0.01)
            await reply(send, {"model": asked.get("model")}, 200)

    async def _load(self, wanted: dict[str, str], send: Send) -> None:
        if self.loads is None:
            await reply(send, {"detail": "Not Found"}, 404)
            return
        self.loads.append(wanted)
        if self.refusal:
            await reply(send, {"error": {"message": self.refusal}}, 400)
            return
        name, root = wanted["lora_name"], wanted["lora_path"]
        self.cards.append({"id": name, "root": root, "parent": self.base, "owned_by": "vllm"})
        await reply(send, {}, 200)

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Five events, a tenth of a second apart."""
        gone = asyncio.ensure_future(receive())
        await send(start(200, [(b"content-type", b"text/event-stream")]))
        for i in range(5):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % i, "more_body": True})
            done, _ = await asyncio.wait({gone}, timeout=0.1)
            if done:
                self.aborted.set()
                return
        gone.cancel()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _flood(self, send: Send) -> None:
        await send(start(200, []))
        while self.flooded < 64 * 2**20:
            await send({"type": "http.response.body", "body": FLOOD, "more_body": True})
            self.flooded += len(FLOOD)
        await send({"type": "http.response.body", "body": b""})


class RawServer:
    """A server on a bare socket: each connection is read once, answered by `answer`, and closed."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def answer(self, request: bytes) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._socket.accept()
            except OSError:
                return
            with wire:
                wire.sendall(self.answer(wire.recv(65536)))


def _probed(body: bytes) -> str | None:
    """The model that is asked for the probe, where this is a request for it."""
    try:
        asked = json.loads(body)
        return asked["model"] if asked["messages"][0]["content"] in TEXTS else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


async def read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def reply(send: Send, body: dict[str, Any], status: int) -> None:
    hop = [(b"connection", b"x-private"), (b"x-private", b"1"), (b"x-traitroute-adapter", b"lie")]
    theirs = [(b"set-cookie", b"node=7"), (b"content-location", b"http://inside:8000/"), *hop]
    theirs += [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
    await send(start(status, [(b"content-type", b"application/json"), (b"x-kept", b"1"), *theirs]))
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def running(app: Any, port: int = 0) -> AbstractContextManager[str]:
    """Serve the app in a thread; the URL."""
    lifespan = "off" if isinstance(app, Upstream) else "on"
    return serving(app, port=port, lifespan=lifespan, timeout_graceful_shutdown=1)


def make_adapter(folder: Path, fill: float) -> Path:
    """An adapter folder in PEFT's format."""
    folder.mkdir()
    config = {"base_model_name_or_path": "tiny", "lora_alpha": 4, "peft_type": "LORA", "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    a, b = np.full((2, 8), fill, np.float32), np.full((8, 2), fill, np.float32)
    tensors = {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def record(registry: Registry, name: str, folder: Path, *, replace: bool = False) -> Adapter:
    """Put an adapter's weights into the store and its record into the registry."""
    files = registry.weights.add(folder)
    adapter = Adapter(
        name=name,
        base_model=BASE_NAME,
        base_digest="0" * 64,
        weights_digest=files.digest,
        rank=2,
        target_modules=("q_proj",),
        state=AdapterState.READY,
    )
    registry.add_adapter(adapter, replace=replace)
    return adapter


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry whose router knows three topics."""
    folder = tmp_path_factory.mktemp("gateway")
    with Registry.create(folder / "traitroute.db") as registry:
        for i, name in enumerate(TOPICS):
            record(registry, name, make_adapter(folder / name, 0.1 * (i + 1)))
        put_profile(registry)
    return folder


def put_profile(registry: Registry, **alike: str) -> None:
    """Fit a profile in which each adapter helps the topic of its name, or that of the adapter that it is `alike`."""
    names = list(TOPICS)
    texts = [f"{text} {word}" for topic in TOPICS.values() for text in topic for word in "abcd"]
    tasks = [name for name, topic in TOPICS.items() for _ in range(4 * len(topic))]
    helps = {name: alike.get(name, name) for name in names}
    gains = np.array([[0.9 if helps[n] == task else -0.3 for n in names] for task in tasks])
    by_task = np.array([[0.9 if helps[n] == task else -0.3 for task in names] for n in names])
    u, s, _ = np.linalg.svd(by_task - by_task.mean(axis=0))
    profile = fit_profile(names, FitRequests(texts, tasks, gains), (u * s)[:, :2], n_traits=2)
    scores = [[0.9 if helps[a] == t else 0.1 for t in names] for a in names]
    registry.put_profile(profile.to_bytes(), made_up_summary(names, names, base=[0.1] * 3, scores=scores))


@pytest.fixture
def registry(profiled: Path, tmp_path: Path) -> Path:
    """A registry of one's own."""
    shutil.copytree(profiled, tmp_path / "registry")
    return tmp_path / "registry" / "traitroute.db"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """What ends with the test."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    with ExitStack() as stack:
        yield stack


Serve = Callable[[Upstream], Upstream]
Gateway = Callable[..., httpx.Client]


@pytest.fixture
def serve(stack: ExitStack) -> Serve:
    """Run an upstream."""

    def run(upstream: Upstream) -> Upstream:
        upstream.url = stack.enter_context(running(upstream))
        return upstream

    return run


@pytest.fixture
def gateway(stack: ExitStack, registry: Path) -> Gateway:
    """Run a gateway in front of these URLs; a client of it."""

    def run(*urls: str, **options: Any) -> httpx.Client:
        app = gateway_app(
            GatewayOptions(upstreams=urls, **options),
            lambda: Registry.open(registry, read_only=True),
        )
        url = stack.enter_context(running(app))
        return stack.enter_context(httpx.Client(base_url=url, timeout=20, trust_env=False))

    return run


def raw(client: httpx.Client, request: bytes) -> int:
    """The status of a request that is sent byte by byte as it stands, without a client that would mend it."""
    url = urlsplit(str(client.base_url))
    with socket.create_connection((url.hostname, url.port), timeout=20) as wire:
        wire.sendall(request)
        answer = wire.recv(65536)
    return int(answer.split()[1])


def ask(client: httpx.Client, text: str, model: str = "auto", **more: Any) -> httpx.Response:
    """One chat request."""
    messages = [{"role": "user", "content": text}]
    return client.post(CHAT, json={"model": model, "messages": messages}, **more)


def eventually(met: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait until `met`, at most so long."""
    until = time.monotonic() + limit_s
    while not met():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)
