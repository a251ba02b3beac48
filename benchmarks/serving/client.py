"""A client that streams, and notes all that it was told: status, headers, the model named, the text, how it ended."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from traitroute.serving.state import BASE

CHAT = "/v1/chat/completions"
PATIENCE_S = 180.0
DOUBTS = ("no-profile", "router-timeout", "router-busy", "router-error", "load-failed")
"""What opens the reason header where base stands in."""


@dataclass(frozen=True)
class Answer:
    """What came of a request: `status` 0 where none arrived; `cut` says why an answer is not whole, `error` what it
    said.
    """

    asked: str
    prompt: str
    began: float
    seconds: float = 0.0
    status: int = 0
    adapter: str = ""
    reason: str = ""
    model: str = ""
    text: str = ""
    cut: str = ""
    error: str = ""

    @property
    def kind(self) -> str:
        """What the headers say: a doubt, by the word that opens the reason, or what the router chose."""
        word = self.reason.partition(":")[0]
        return word if word in DOUBTS or self.adapter == BASE else "adapter"


def chat(model: str, prompt: str, *, max_tokens: int, **more: Any) -> dict[str, Any]:
    """A request's body; answers are greedy and of one length."""
    turns = [{"role": "user", "content": prompt}]
    fixed = {"temperature": 0, "max_tokens": max_tokens, "ignore_eos": True}
    return {"model": model, "messages": turns, **fixed, **more}


@asynccontextmanager
async def open_client(base_url: str, connections: int, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of up to `connections` connections."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(base_url=base_url, headers=headers, limits=limits, timeout=PATIENCE_S) as client:
        yield client


async def stream_answer(client: httpx.AsyncClient, asked: str, prompt: str, *, max_tokens: int) -> Answer:
    """Ask, and read the stream to its end."""
    told: dict[str, Any] = {"asked": asked, "prompt": prompt, "began": time.monotonic()}
    body = chat(asked, prompt, max_tokens=max_tokens, stream=True)
    lines: list[str] = []
    try:
        async with client.stream("POST", CHAT, json=body) as response:
            told["status"] = response.status_code
            told["adapter"] = response.headers.get("x-traitroute-adapter", "")
            told["reason"] = response.headers.get("x-traitroute-reason", "")
            async for line in response.aiter_lines():
                lines.append(line)
    except httpx.HTTPError as exc:
        told["cut"] = type(exc).__name__
    told["seconds"] = time.monotonic() - told["began"]
    if told.get("status") == 200:
        told = _said(lines) | told
    elif lines:
        told["error"] = lines[0][:200]
    return Answer(**told)


def _said(lines: Sequence[str]) -> dict[str, Any]:
    """The model and the text of a stream's events, and whether it came to its own end."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    events = [json.loads(each) for each in data if each != "[DONE]"]
    choices = [choice for event in events for choice in event.get("choices", ())]
    errors = [json.dumps(event["error"])[:200] for event in events if "error" in event]
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    whole = ends in (["stop"], ["length"]) and data[-1] == "[DONE]"
    return {
        "model": events[0].get("model", "") if events else "",
        "text": "".join(choice["delta"].get("content") or "" for choice in choices),
        "cut": "" if whole else f"ends with {ends or errors or 'nothing'}",
        "error": "".join(errors[:1]),
    }


async def leave_early(client: httpx.AsyncClient, asked: str, prompt: str, max_tokens: int) -> None:
    """Begin to read a long answer, and hang up at the second event."""
    body = chat(asked, prompt, max_tokens=max_tokens, stream=True)
    async with client.stream("POST", CHAT, json=body) as response:
        seen = 0
        async for line in response.aiter_lines():
            seen += line.startswith("data: ")
            if seen > 1:
                return


def read_metrics(text: str) -> dict[str, float]:
    """Sums of Prometheus samples by name, over all labels."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def growth(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    """By how much a counter grew."""
    return after.get(name, 0.0) - before.get(name, 0.0)


async def metrics_of(client: httpx.AsyncClient) -> dict[str, float]:
    """The server's metrics now."""
    return read_metrics((await client.get("/metrics")).text)


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Wait, but not beyond `until`."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass
