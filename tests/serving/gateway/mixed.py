"""Requests of all kinds at once, and who answered each, by what each adapter's weights say without any server."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving.client import CHAT, Answer, chat, stream_answer
from serving.topics import TOPICS
from serving.truth import MAX_TOKENS, Truth, Verdict, unmistakable
from traitroute.adapters import Registry
from traitroute.serving.engines import EngineRequest
from traitroute.serving.engines.embedded import TransformersEngine
from traitroute.serving.engines.local_model import fastest_precision
from traitroute.serving.state import AUTO, BASE

BROKEN = "\ufffd"
"""What a text cut within a character ends in; a stream leaves that out."""
STRANGE = ("zzz qqq", "xyzzy plugh", "qwx vbn jkl", "hm, hm, hm")
"""Prompts that are like nothing profiled."""


@pytest.fixture(scope="module")
def exact() -> Iterator[None]:
    """Servers compute in float32, in which answers can be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAITROUTE_PRECISION", "float32")
        fastest_precision.cache_clear()
        yield
    fastest_precision.cache_clear()


def prompts() -> list[str]:
    """Two prompts of each topic, and strange ones."""
    return [*(text for rows in TOPICS.values() for text in rows[:2]), *STRANGE]


def read_truth(base: Path, registry: Registry, prompts: Sequence[str]) -> Truth:
    """What the stored weights say to each prompt; prompts that two of them answer alike are left out."""
    models = {None: BASE} | {adapter: adapter.name for adapter in registry.servable()}
    engine = TransformersEngine(base, registry.weights)
    cases = [(adapter, prompt) for adapter in models for prompt in prompts]
    requests = [EngineRequest(({"role": "user", "content": p},), a, max_tokens=MAX_TOKENS) for a, p in cases]
    results = engine.run(requests)
    engine.close()
    short = {prompt for (_, prompt), r in zip(cases, results, strict=True) if r.output_tokens < MAX_TOKENS}
    said = {(models[a], p): r.text.rstrip(BROKEN) for (a, p), r in zip(cases, results, strict=True) if p not in short}
    return unmistakable(said, base.name)


async def ask_mixed(url: str, truth: Truth, count: int, *, at_a_time: int = 8) -> list[Answer]:
    """Ask for `auto`, adapters and base, half of the requests as streams; the same ones each time."""
    draw = random.Random(0)
    cases = [
        (draw.choice((AUTO, AUTO, AUTO, draw.choice(truth.models))), draw.choice(truth.prompts), i % 2 == 0)
        for i in range(count)
    ]
    room = asyncio.Semaphore(at_a_time)
    async with httpx.AsyncClient(base_url=url, timeout=180, trust_env=False) as client:

        async def ask(model: str, prompt: str, streams: bool) -> Answer:
            async with room:
                if streams:
                    answer = await stream_answer(client, model, prompt, max_tokens=MAX_TOKENS)
                else:
                    answer = await json_answer(client, model, prompt)
            return replace(answer, text=answer.text.rstrip(BROKEN))

        return await asyncio.gather(*(ask(*case) for case in cases))


async def json_answer(client: httpx.AsyncClient, asked: str, prompt: str) -> Answer:
    """Ask for the answer in one piece."""
    began = time.monotonic()
    response = await client.post(CHAT, json=chat(asked, prompt, max_tokens=MAX_TOKENS))
    told: dict[str, Any] = {"asked": asked, "prompt": prompt, "began": began, "seconds": time.monotonic() - began}
    for name in ("adapter", "reason"):
        told[name] = response.headers.get(f"x-traitroute-{name}", "")
    if response.status_code == 200:
        body = response.json()
        told |= {"model": body["model"], "text": body["choices"][0]["message"]["content"]}
    else:
        told["error"] = response.text[:300]
    return Answer(status=response.status_code, **told)


def summary(truth: Truth, answers: Sequence[Answer]) -> dict[str, Any]:
    """Verdicts, who answered `auto`, why base did, and which answers were not right."""
    routed = [a for a in answers if a.asked == AUTO]
    wrong = [a for a in answers if truth.judge(a) is not Verdict.RIGHT]
    tellers = [a.adapter if a.asked == AUTO else a.asked for a in wrong]
    said = [(t, a.prompt, a.text, truth.said[t, a.prompt]) for t, a in zip(tellers, wrong, strict=True)]
    return {
        "verdicts": truth.count(answers),
        "auto by": dict(Counter(a.adapter for a in routed)),
        "reasons": dict(Counter(a.kind for a in routed)),
        "errors": list(dict.fromkeys(a.error for a in answers if a.error))[:3],
        "wrong": dict(Counter(tellers)),
        "said": list(dict.fromkeys(said)),
    }


async def answered_by_base(url: str, truth: Truth, registry: Registry) -> None:
    """Break the chooser, and see that base answers, and says why."""
    newest = registry.latest_profile()
    assert newest is not None
    with Registry.open(registry.path) as opened:
        opened.put_profile(b"no profile", newest.summary)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client, asyncio.timeout(60):
        while not (answer := await json_answer(client, AUTO, truth.prompts[0])).reason.startswith("no-profile"):
            assert answer.status == 200, answer.error
            await asyncio.sleep(0.2)
    answer = replace(answer, text=answer.text.rstrip(BROKEN))
    assert (answer.adapter, truth.judge(answer)) == (BASE, Verdict.RIGHT)
