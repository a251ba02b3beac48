"""Sessions: scripted conversations of five turns, sticky against decided anew at each turn.

Each turn turns to another topic, so that deciding anew switches the adapter; the replies are scripted too, so that both
ways read the same words. A number opens every conversation, so that no two share a cached beginning. Answers are one
token long: a turn's latency is the reading of what no cache held.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
from rich.table import Table
from traitroute.serving.state import AUTO

from .client import CHAT, growth, read_metrics
from .paired import Difference
from .stand import Stand

TURNS = 5
ARMS = ("sticky", "decided anew")
MATERIAL, ASKED, REPLY = 1_600, 150, 500
"""Characters of what a conversation opens with, of each user turn, and of each reply: more than a block of the prefix
cache.
"""

HITS, QUERIES = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Turn:
    """One answered turn: prompt tokens that the prefix cache was asked for and had."""

    arm: str
    conversation: int
    number: int
    adapter: str
    ms: float
    queried: float
    hit: float


@dataclass(frozen=True)
class Arm:
    """One way over all conversations; hits are over the turns after the first."""

    name: str
    hit_percent: float
    switches: float
    second_turn_ms: float
    all_turns_s: float


@dataclass(frozen=True)
class Sessions:
    """Both ways, and how much longer second turns took when decided anew."""

    conversations: int
    arms: Sequence[Arm]
    second_turn: Difference

    def table(self) -> Table:
        """One line a way."""
        shown = Table(title=f"{TURNS}-turn conversations", title_justify="left")
        for name in ("way", "prefix cache hits", "switches each", "second turn ms", "all turns s"):
            shown.add_column(name, justify="left" if name == "way" else "right")
        for a in self.arms:
            figures = (f"{a.hit_percent:.1f}%", f"{a.switches:.1f}", f"{a.second_turn_ms:.0f}")
            shown.add_row(a.name, *figures, f"{a.all_turns_s:.1f}")
        shown.caption = (
            f"{self.conversations} conversations, each both ways in changing order; hits over turns 2 to {TURNS}, by "
            f"vLLM's counters; second turn decided anew: {self.second_turn.median_ms:+.2f} ms (median of pairs)"
        )
        return shown


def measure_sessions(stand: Stand, count: int, track: Any, *, seed: int) -> tuple[Sessions, list[Turn]]:
    """Hold `count` conversations both ways."""
    rng = np.random.default_rng(seed)
    turns: list[Turn] = []
    with httpx.Client(base_url=stand.server.base_url, timeout=300) as client:
        for name in stand.rows:
            # Loads the adapters that are there, and is no part of this.
            _ask(client, [{"role": "user", "content": stand.rows[name][0]}], {})
        for i in track(range(count), "conversations"):
            script = scripted(stand.rows, rng)
            for arm in rng.permutation(len(ARMS)):
                opening = f"Conversation {rng.integers(10**9)}. "
                turns += _hold(client, ARMS[arm], i, opening, script)
    return summary(turns, rng), turns


def scripted(rows: dict[str, list[str]], rng: np.random.Generator) -> Messages:
    """User turns on different topics, each but the last with its reply."""
    topics = rng.permutation(list(rows))
    messages: Messages = []
    for number in range(TURNS):
        texts = rows[topics[number % len(topics)]]
        asked = _text(texts, ASKED if number else MATERIAL, rng)
        messages += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": _text(texts, REPLY, rng)},
        ]
    return messages[:-1]


def _text(rows: Sequence[str], characters: int, rng: np.random.Generator) -> str:
    text = ""
    while len(text) < characters:
        text += f"{rows[int(rng.integers(len(rows)))]} "
    return text[:characters]


def summary(turns: Sequence[Turn], rng: np.random.Generator) -> Sessions:
    """Sum up the turns of both ways, by conversation and number."""
    ordered = sorted(turns, key=lambda t: (t.conversation, t.number))
    seconds = [np.array([t.ms for t in ordered if t.arm == a and t.number == 1]) for a in ARMS]
    return Sessions(
        conversations=len(seconds[0]),
        arms=[_arm(a, [t for t in ordered if t.arm == a]) for a in ARMS],
        second_turn=Difference.of(seconds[1], seconds[0], rng),
    )


def _arm(name: str, turns: Sequence[Turn]) -> Arm:
    later = [t for t in turns if t.number]
    conversations = len(turns) - len(later)
    switches = sum(b.number > 0 and a.adapter != b.adapter for a, b in pairwise(turns))
    return Arm(
        name=name,
        hit_percent=100 * sum(t.hit for t in later) / max(sum(t.queried for t in later), 1),
        switches=switches / conversations,
        second_turn_ms=float(np.median([t.ms for t in turns if t.number == 1])),
        all_turns_s=sum(t.ms for t in turns) / 1000 / conversations,
    )


def _hold(client: httpx.Client, arm: str, conversation: int, opening: str, script: Messages) -> list[Turn]:
    """Ask the turns of one conversation in their order."""
    first = {"role": "user", "content": opening + script[0]["content"]}
    messages = [first, *script[1:]]
    headers = {} if arm == ARMS[0] else {"x-traitroute-reroute": "1"}
    turns = []
    for number in range(TURNS):
        before = read_metrics(client.get("/metrics").text)
        begin = time.perf_counter()
        adapter = _ask(client, messages[: 2 * number + 1], headers)
        ms = 1000 * (time.perf_counter() - begin)
        after = read_metrics(client.get("/metrics").text)
        cached = growth(before, after, QUERIES), growth(before, after, HITS)
        turns.append(Turn(arm, conversation, number, adapter, ms, *cached))
    return turns


def _ask(client: httpx.Client, messages: Messages, headers: dict[str, str]) -> str:
    body = {"model": AUTO, "messages": messages, "max_tokens": 1, "temperature": 0}
    response = client.post(CHAT, json=body, headers=headers)
    return response.raise_for_status().headers["x-traitroute-adapter"]
