"""Throughput: `vllm bench serve` by `auto` and by the name of the adapter that `auto` chooses, in one server.

Every round runs it three times over the same requests, in an order drawn for the round: by the adapter's name, by its
name again (the control) and by `auto`. Before each run the prefix cache is reset, so that no run reads what another
left there. The requests are those that the router gives to one adapter, so that the engine's work is the same in all
runs.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from interval import Interval
from latency.texts import Rows, request_texts
from numpy.typing import NDArray
from rich.table import Table
from traitroute.adapters import ServerError
from traitroute.router import Router
from traitroute.serving.state import AUTO

from .client import CHAT, chat, growth, read_metrics
from .overhead import ARMS, LONGEST
from .paired import percent_more
from .stand import Stand

DRAWN = 20
"""Texts drawn for each that is asked, of which those of one adapter are kept."""


@dataclass(frozen=True)
class Throughput:
    """Requests a second of each way to ask, median over rounds; what others give more than `named`, in %.

    `routed` and `fallbacks` are counted by the server: every request of `auto` must be among the first, none among the
    second.
    """

    rounds: int
    requests: int
    concurrency: int
    tokens: int
    adapter: str
    requests_a_second: Mapping[str, float]
    auto: Interval
    control: Interval
    routed: float
    fallbacks: float

    def table(self) -> Table:
        """One line an arm."""
        shown = Table(title="vllm bench serve, requests a second", title_justify="left")
        for name in ("asked for", "median", "more, in %"):
            shown.add_column(name, justify="left" if name == "asked for" else "right")
        differences = {"named again": f"{self.control:+.2f}", AUTO: f"{self.auto:+.2f}"}
        for arm in ARMS:
            shown.add_row(arm, f"{self.requests_a_second[arm]:.3f}", differences.get(arm, ""))
        shown.caption = (
            f"{self.rounds} rounds of {self.requests} requests, {self.concurrency} at a time, "
            f"{self.tokens} tokens an answer, all by "
            f"{self.adapter!r}; the server routed {self.routed:.0f}, {self.fallbacks:.0f} of them fell back to base"
        )
        return shown


def measure_throughput(
    stand: Stand,
    rounds: int,
    requests: int,
    concurrency: int,
    tokens: int,
    track: Any,
    *,
    seed: int,
) -> tuple[Throughput, NDArray[np.float64]]:
    """Measure, and return the requests a second too, (rounds, `ARMS`)."""
    rng = np.random.default_rng(seed)
    adapter, texts = alike(Router.from_registry(stand.registry), stand.rows, requests, rng)
    dataset = stand.folder / "requests.jsonl"
    dataset.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    command = bench_command(stand, dataset, concurrency, tokens)
    orders = [rng.permutation(len(ARMS)) for _ in range(rounds)]
    rates = np.zeros((rounds, len(ARMS)))
    with httpx.Client(base_url=stand.server.base_url, timeout=120) as client:
        # The adapter is loaded by the first request for it, which is no part of this.
        client.post(CHAT, json=chat(adapter, texts[0], max_tokens=1)).raise_for_status()
        before = read_metrics(client.get("/metrics").text)
        for number, arm in track([(n, a) for n, o in enumerate(orders) for a in o], "runs"):
            client.post("/reset_prefix_cache").raise_for_status()
            asked = AUTO if ARMS[arm] == AUTO else adapter
            rates[number, arm] = _run([*command, "--model", asked], stand.folder, requests)
        after = read_metrics(client.get("/metrics").text)
    named, again, auto = rates.T
    found = Throughput(
        rounds=rounds,
        requests=requests,
        concurrency=concurrency,
        tokens=tokens,
        adapter=adapter,
        requests_a_second=dict(zip(ARMS, np.median(rates, axis=0).tolist(), strict=True)),
        auto=percent_more(auto, named, rng),
        control=percent_more(again, named, rng),
        routed=growth(before, after, "traitroute_decisions_total"),
        fallbacks=growth(before, after, "traitroute_fallbacks_total"),
    )
    return found, rates


def alike(router: Router, rows: Rows, count: int, rng: np.random.Generator) -> tuple[str, Sequence[str]]:
    """Return the adapter that the router chooses most often, and `count` texts that it chooses it for."""
    chosen: defaultdict[str, list[str]] = defaultdict(list)
    for text in request_texts(rows, DRAWN * count, rng):
        adapter = router.route(text).adapter if len(text) <= LONGEST else None
        if adapter is not None:
            chosen[adapter].append(text)
    adapter = max(chosen, key=lambda name: len(chosen[name]), default="")
    if len(chosen[adapter]) < count:
        raise ServerError(
            f"only {len(chosen[adapter])} of {DRAWN * count} texts go to one adapter: ask for fewer than {count}"
        )
    return adapter, chosen[adapter][:count]


def bench_command(stand: Stand, dataset: Path, concurrency: int, tokens: int) -> list[str]:
    """`vllm bench serve` over the requests of `dataset`, but for the model."""
    options = {
        "backend": "openai-chat",
        "base-url": stand.server.base_url,
        "endpoint": CHAT,
        "tokenizer": stand.base_path,
        "dataset-name": "custom",
        "dataset-path": dataset,
        "custom-output-len": tokens,
        "num-prompts": -1,
        "max-concurrency": concurrency,
        "temperature": 0,
        "result-dir": dataset.parent,
        "result-filename": "result.json",
    }
    command = [str(Path(sys.executable).with_name("vllm")), "bench", "serve"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    # The chat template is the server's to apply.
    return [*command, "--skip-chat-template", "--ignore-eos", "--save-result", "--disable-tqdm"]


def _run(command: Sequence[str], folder: Path, requests: int) -> float:
    """Requests a second of one run, all of whose requests must be answered."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"vllm bench serve ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result = json.loads((folder / "result.json").read_text())
    if result["completed"] != requests:
        raise ServerError(f"{requests - result['completed']} of {requests} requests of vllm bench serve failed")
    return result["request_throughput"]
