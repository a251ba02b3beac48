"""The middleware alone, in this process and without a server: what it takes before the app behind is called and after.

Here no engine's noise hides it: the same requests by the adapter's name, for `auto`, and past the middleware.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from traitroute.adapters import Adapter
from traitroute.router import Router
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import AUTO, ServerState

from .client import CHAT, chat

ROUNDS = 5
PLAIN = "no middleware"


@dataclass(frozen=True)
class Alone:
    """Median ms a request: past the middleware, through it by name, and for `auto`."""

    plain_ms: float
    named_ms: float
    auto_ms: float


class _Loaded:
    """Every adapter is loaded."""

    async def ensure(self, name: str) -> None:
        """Do nothing."""


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request, as a real app does, and answer with nothing."""
    json.loads((await receive())["body"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def measure_middleware(router: Router, texts: Sequence[str]) -> Alone:
    """Ask each text in the three ways, a few rounds."""
    # Not the time limit of a server: nothing may be left out of the times of a busy machine.
    names = router.profile.adapters
    snapshot = RegistrySnapshot(adapters={name: _adapter(name) for name in names}, router=router)
    state = ServerState(snapshot=snapshot, loader=_Loaded(), budget_s=10)
    routed = RoutingMiddleware(_app, state=state)
    arms: Mapping[str, tuple[ASGIApp, str]] = {
        PLAIN: (_app, min(names)),
        "named": (routed, min(names)),
        AUTO: (routed, AUTO),
    }

    async def run() -> dict[str, list[float]]:
        spent: dict[str, list[float]] = {arm: [] for arm in arms}
        for text in [*texts] * ROUNDS:
            for arm, (app, model) in arms.items():
                body = json.dumps(chat(model, text, max_tokens=1)).encode()
                begin = time.perf_counter_ns()
                await _post(app, body)
                spent[arm].append((time.perf_counter_ns() - begin) / 1e6)
        return spent

    medians = {arm: float(np.median(ms)) for arm, ms in asyncio.run(run()).items()}
    return Alone(medians[PLAIN], medians["named"], medians[AUTO])


def _adapter(name: str) -> Adapter:
    return Adapter(
        name=name,
        base_model="made-up",
        base_digest="0" * 64,
        weights_digest="1" * 64,
        rank=8,
        target_modules=("q_proj",),
    )


async def _post(app: ASGIApp, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    scope: Scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [length]}

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        pass

    await app(scope, receive, send)
