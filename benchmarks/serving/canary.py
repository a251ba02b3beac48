"""Canaries on a real server, vLLM or the embedded engine: their shares, who answers, and what feedback makes of them.

Two adapters enter with a share each, in the place of the one for their topic: to one the users are kinder than to the
adapter it replaces, to the other less kind. Conversations of both topics are asked for `auto`, half of them once more;
each answer's reward is reported over HTTP. Then the product takes its steps, as if two hours had passed, and further
conversations show who answers now.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.table import Table
from traitroute.serving.lift.canary import take_steps
from traitroute.serving.state import AUTO

from .client import CHAT, chat
from .stand import Stand
from .topics import TOPICS

TWINS = {"cook2": "cook", "coder2": "coder"}
KINDNESS = {"cook2": 0.9, "cook": 0.3, "coder2": 0.1, "coder": 0.8}
"""With which probability a user is content with an adapter's answer."""
SHARE = 0.3
SEEN_WITHIN_S = 4.0
"""After so long every process goes by what is in the registry."""


@dataclass(frozen=True)
class Entered:
    """What became of a canary: of so many `conversations` that it would win so many were `given` to it, by which 95%
    `interval` the product decided how, and who answered `later` conversations.
    """

    canary: str
    incumbent: str
    conversations: int
    given: int
    content: float
    content_incumbent: float
    interval: tuple[float, float] | None
    verdict: str
    later: Mapping[str, int]


@dataclass(frozen=True)
class Canaries:
    """The canaries, how many conversations `moved` when they were asked again, and how many were of neither side."""

    entered: tuple[Entered, ...]
    moved: int
    others: int

    def table(self) -> Table:
        """One line a canary."""
        shown = Table(title=f"canaries at {SHARE:.0%} on a real server", title_justify="left")
        columns = ("canary", "for", "conversations", "given", "content", "with the other", "95%", "then", "answered by")
        for column in columns:
            shown.add_column(column)
        for e in self.entered:
            interval = "–" if e.interval is None else f"{e.interval[0]:+.2f} to {e.interval[1]:+.2f}"
            later = ", ".join(f"{name} {count}" for name, count in e.later.items())
            rates = (f"{e.content:.0%}", f"{e.content_incumbent:.0%}")
            given = f"{e.given} ({e.given / max(e.conversations, 1):.0%})"
            shown.add_row(e.canary, e.incumbent, str(e.conversations), given, *rates, interval, e.verdict, later)
        shown.caption = f"asked again, {self.moved} conversations changed sides; {self.others} answers were by neither"
        return shown


def measure_canaries(stand: Stand, count: int, track: Any, *, seed: int) -> Canaries:
    """Let both enter, ask `count` conversations of each topic twice, report, take the steps, and ask some more."""
    draw, registry = random.Random(seed), stand.registry
    for canary, incumbent in TWINS.items():
        registry.set_canary(canary, SHARE, replaces=incumbent, why="entered")
    time.sleep(SEEN_WITHIN_S)
    texts = [f"{TOPICS[t][i % len(TOPICS[t])]} Number {i}." for i in range(count) for t in TWINS.values()]
    told = {text: _asked(stand, text) for text in track(texts, "conversations")}
    moved = sum(_asked(stand, text)[0] != told[text][0] for text in track(texts[: count // 2], "asked again"))
    content: dict[str, list[float]] = {name: [] for name in KINDNESS}
    for adapter, token in track(list(told.values()), "feedback"):
        if adapter in content:
            content[adapter].append(float(draw.random() < KINDNESS[adapter]))
            _post(stand, "/v1/feedback", {"decision": token, "reward": content[adapter][-1]})
    steps = {step.adapter: step for step in take_steps(registry, datetime.now(UTC) + timedelta(hours=2))}
    time.sleep(SEEN_WITHIN_S)
    entered = []
    for canary, incumbent in TWINS.items():
        later = Counter(
            _asked(stand, f"{TOPICS[incumbent][i % len(TOPICS[incumbent])]} Later {i}.")[0] for i in range(count // 4)
        )
        step = steps.get(canary)
        estimate = step and step.estimate
        own, other = content[canary], content[incumbent]
        entered.append(
            Entered(
                canary=canary,
                incumbent=incumbent,
                conversations=len(own) + len(other),
                given=len(own),
                content=sum(own) / max(len(own), 1),
                content_incumbent=sum(other) / max(len(other), 1),
                interval=estimate and (estimate.low, estimate.high),
                verdict="wait" if step is None else step.verdict,
                later=dict(later),
            )
        )
    return Canaries(tuple(entered), moved, sum(adapter not in content for adapter, _ in told.values()))


def _asked(stand: Stand, text: str) -> tuple[str, str]:
    """Who answers a conversation, which the answer's model says too, and the decision's token."""
    answer = _post(stand, CHAT, chat(AUTO, text, max_tokens=1))
    adapter = answer.headers["x-traitroute-adapter"]
    if answer.json()["model"] not in (adapter, stand.base):
        raise RuntimeError(f"the header says {adapter!r} and the answer {answer.json()['model']!r}")
    return adapter, answer.headers.get("x-traitroute-decision-token", "")


def _post(stand: Stand, path: str, body: Mapping[str, Any]) -> httpx.Response:
    """Ask over a connection of its own."""
    return httpx.post(f"{stand.server.base_url}{path}", json=body, timeout=600).raise_for_status()
