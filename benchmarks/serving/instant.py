"""A model server that answers at once, for what stands before it to be timed: an ASGI app, in a process of its own.

It lists an adapter for each topic. An answer is the name of the model that was asked for; a stream has `EVENTS` events,
a few ms apart, as a model's tokens are.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from .topics import TOPICS

BASE_NAME = "tiny"
EVENTS = 8
GAP_S = 0.002


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        cards = [{"id": BASE_NAME, "root": BASE_NAME, "parent": None, "owned_by": "vllm"}]
        cards += [{"id": name, "root": None, "parent": BASE_NAME, "owned_by": "vllm"} for name in TOPICS]
        await _reply(send, {"object": "list", "data": cards})
        return
    asked = json.loads(await _body(receive))
    if not asked.get("stream"):
        message = {"role": "assistant", "content": asked["model"]}
        await _reply(send, {"model": asked["model"], "choices": [{"index": 0, "message": message, "logprobs": None}]})
        return
    await send(_start(b"text/event-stream"))
    for number in range(EVENTS):
        event = {"model": asked["model"], "choices": [{"index": 0, "delta": {"content": f"{number}"}}]}
        await send(_part(f"data: {json.dumps(event)}\n\n".encode(), more=True))
        await asyncio.sleep(GAP_S)
    await send(_part(b"data: [DONE]\n\n"))


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _reply(send: Send, said: Any) -> None:
    await send(_start(b"application/json"))
    await send(_part(json.dumps(said).encode()))


def _start(kind: bytes) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}


def _part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@contextmanager
def instant_server(log: Path) -> Iterator[str]:
    """Run it; the URL."""
    from traitroute.serving.vllm import free_port, running_process

    port = free_port()
    place = ["--app-dir", str(Path(__file__).parents[1]), "--port", str(port), "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "serving.instant:app", *place]
    with running_process(command, f"http://127.0.0.1:{port}", log_path=log) as server:
        yield server.base_url
