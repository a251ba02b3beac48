"""What the control group, second choices, outcomes, tenants, a canary and ties cost together, against a server without.

Three `traitroute serve --engine transformers` of a two-layer model whose adapters are random, so that an answer of one
token takes a few milliseconds and what is beside it shows: two with none of it, of which the second is the control
(A/A), and one with all of it. Every text is asked of the three for `auto`, one request at a time, in an order drawn for
it. Compared are the texts that one and the same adapter answered in all three: those that are held back, explored or a
canary's are counted, and so are those that fell back. Beside the latencies is what the servers say themselves, by
request: how long choices took, waiting for the processor included, and their processor time, which others' load on the
machine hardly moves, with all that is done after the answer, as writing outcomes, and while nothing is asked. Last, the
processor time of choosing alone, in this process: once, twice by one prediction as with a canary, and twice anew.
"""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from traitroute.adapters import Registry
from traitroute.router import Router
from traitroute.serving.http.tenants import key_hash
from traitroute.serving.state import AUTO

from .client import CHAT, chat, growth, read_metrics
from .paired import Difference
from .stand import embedded_server, made_registry, tiny_base, topic_profile
from .topics import TOPICS

SERVERS = ("off", "off again", "on")
OPERATOR, TENANT = "the-operators-key", "a-tenants-key"
INCUMBENT, CANARY = "cook", "cook2"
SHARE = 0.1
VARIABLES = {
    "TRAITROUTE_HOLDBACK": "0.02",
    "TRAITROUTE_EXPLORE": "0.05",
    "TRAITROUTE_OUTCOMES": "format,answered",
    "TRAITROUTE_LOAD_COST": "20",
}
WARM_UP, ALONE = 6, 200
"""Texts of each topic that are asked before: adapters are loaded and proven by them."""


@dataclass(frozen=True)
class Production:
    """Median ms at one token and differences to the server `off`, of `compared` among `texts`; `arms` counts what the
    server with all of it says of each text; `routing_ms` is the mean of each server's own histogram, and `cpu_ms` its
    processor time by request. `choosing_ms` is the processor time of the router alone.
    """

    texts: int
    compared: int
    arms: Mapping[str, int]
    fell_back: int
    median_ms: Mapping[str, float]
    on: Difference
    control: Difference
    routing_ms: Mapping[str, float]
    cpu_ms: Mapping[str, float]
    choosing_ms: Mapping[str, float]

    def table(self) -> Table:
        """One line a server."""
        shown = Table(title="latency of auto at max_tokens=1, ms", title_justify="left")
        for name in ("server", "median", "more, median", "in %", "more, mean", "choice, mean", "processor"):
            shown.add_column(name, justify="left" if name == "server" else "right")
        differences = {"off again": self.control, "on": self.on}
        for server in SERVERS:
            d = differences.get(server)
            more = ["", "", ""] if d is None else [f"{each:+.2f}" for each in (d.median_ms, d.percent, d.mean_ms)]
            own = f"{self.routing_ms[server]:.2f}", f"{self.cpu_ms[server]:.2f}"
            shown.add_row(server, f"{self.median_ms[server]:.2f}", *more, *own)
        arms = ", ".join(f"{count} {arm}" for arm, count in sorted(self.arms.items()))
        shown.caption = (
            f"{self.compared} of {self.texts} texts compared, which one adapter answered in all three; with all of it: "
            f"{arms}; {self.fell_back} fell back. The router alone, ms of processor time: "
            + ", ".join(f"{way} {ms:.2f}" for way, ms in self.choosing_ms.items())
        )
        return shown


def measure_production(count: int, track: Any, *, seed: int) -> tuple[Production, NDArray[np.float64]]:
    """Measure, and return the times too: ms, (texts compared, `SERVERS`)."""
    rng = np.random.default_rng(seed)
    asked = [text for rows in TOPICS.values() for text in rows]
    first = [f"{rows[i % len(rows)]} First {i}." for rows in TOPICS.values() for i in range(WARM_UP)]
    texts = [f"{asked[int(rng.integers(len(asked)))]} Number {i}." for i in range(count)]
    with three_servers() as clients:
        for text in track(first, "loading"):
            _answers(clients, text, rng)
        before = [_metrics(client) for client in clients.values()]
        answers = [_answers(clients, text, rng) for text in track(texts, "timed texts")]
        after = [_metrics(client) for client in clients.values()]
    routing, cpu = (
        {server: 1000 * growth(b, a, name) / count for server, b, a in zip(SERVERS, before, after, strict=True)}
        for name in ("traitroute_routing_seconds_sum", "process_cpu_seconds_total")
    )
    return summary(answers, routing, cpu, measure_choosing(texts[:ALONE]), rng)


def measure_choosing(texts: Sequence[str]) -> dict[str, float]:
    """Ms of processor time a text: a choice, two by one prediction, and two anew."""
    router = Router(topic_profile({CANARY: INCUMBENT}))

    def twice(text: str) -> None:
        prediction = router.predict(text)
        router.route(prediction)
        router.route(prediction)

    ways: dict[str, Callable[[str], object]] = {
        "once": router.route,
        "twice by one prediction": twice,
        "twice anew": lambda text: (router.route(text), router.route(text)),
    }
    spent = dict.fromkeys(ways, 0.0)
    for text in texts:
        for way, choose in ways.items():
            begin = time.process_time_ns()
            choose(text)
            spent[way] += (time.process_time_ns() - begin) / 1e6
    return {way: ms / len(texts) for way, ms in spent.items()}


@dataclass(frozen=True)
class Timed:
    """How long one answer took, in ms, and what its headers say."""

    ms: float
    adapter: str
    arm: str


def summary(
    answers: Sequence[Sequence[Timed]],
    routing_ms: Mapping[str, float],
    cpu_ms: Mapping[str, float],
    choosing_ms: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[Production, NDArray[np.float64]]:
    """What the answers say, a row a text, each of all `SERVERS`."""
    alike = [row for row in answers if len({(each.adapter, bool(each.arm)) for each in row}) == 1 and row[0].arm]
    times = np.array([[each.ms for each in row] for row in alike])
    off, again, on = times.T
    found = Production(
        texts=len(answers),
        compared=len(alike),
        arms=dict(Counter(row[-1].arm or "fallback" for row in answers)),
        fell_back=sum(not each.arm for row in answers for each in row),
        median_ms=dict(zip(SERVERS, np.median(times, axis=0).tolist(), strict=True)),
        on=Difference.of(on, off, rng),
        control=Difference.of(again, off, rng),
        routing_ms=routing_ms,
        cpu_ms=cpu_ms,
        choosing_ms=choosing_ms,
    )
    return found, times


@contextmanager
def three_servers() -> Iterator[dict[str, httpx.Client]]:
    """A client of each of the `SERVERS`, which have registries of their own."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        base = tiny_base(folder / "tiny")
        made_registry(folder / "off", base, twins={CANARY: INCUMBENT}).close()
        with Registry.open(folder / "off" / "registry.db") as registry:
            registry.set_canary(CANARY, 0.0)
        for other in ("off again", "on"):
            shutil.copytree(folder / "off", folder / other)
        with Registry.open(folder / "on" / "registry.db") as registry:
            registry.set_canary(CANARY, SHARE, replaces=INCUMBENT)
        tenants = folder / "tenants.toml"
        names = [*TOPICS, CANARY]
        tenants.write_text(f'[tenants.team]\nkeys = ["{key_hash(TENANT)}"]\nadapters = {names}\n')
        given = {server: {} for server in SERVERS} | {"on": VARIABLES | {"TRAITROUTE_TENANTS": str(tenants)}}
        with ThreadPoolExecutor(len(SERVERS)) as pool:
            urls = pool.map(lambda server: _served(stack, folder, server, base, given[server]), SERVERS)
        clients = {}
        for server, url in zip(SERVERS, urls, strict=True):
            headers = {"authorization": f"Bearer {TENANT if given[server] else OPERATOR}"}
            clients[server] = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=120))
        yield clients


def _served(stack: ExitStack, folder: Path, server: str, base: Path, given: Mapping[str, str]) -> str:
    # One slot less than adapters, so that ties are looked for.
    options = ["--api-key-env", "BENCHMARK_KEY", "--max-loras", str(len(TOPICS))]
    variables = {"BENCHMARK_KEY": OPERATOR, **given}
    return stack.enter_context(embedded_server(folder / server, base, options=options, variables=variables)).base_url


def _answers(clients: Mapping[str, httpx.Client], text: str, rng: np.random.Generator) -> list[Timed]:
    """What each server makes of a text, in the order of `SERVERS`."""
    body = chat(AUTO, text, max_tokens=1)
    found: dict[str, Timed] = {}
    for i in rng.permutation(len(SERVERS)):
        begin = time.perf_counter_ns()
        answer = clients[SERVERS[i]].post(CHAT, json=body).raise_for_status()
        ms = (time.perf_counter_ns() - begin) / 1e6
        headers = answer.headers
        found[SERVERS[i]] = Timed(ms, headers["x-traitroute-adapter"], headers.get("x-traitroute-arm", ""))
    return [found[server] for server in SERVERS]


def _metrics(client: httpx.Client) -> dict[str, float]:
    return read_metrics(client.get("/metrics", headers={"authorization": f"Bearer {OPERATOR}"}).text)
