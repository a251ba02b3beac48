"""What control group, outcomes, tenants, a canary and ties cost, each alone and all together, against a server without.

Servers of `traitroute serve --engine transformers` of a two-layer model whose adapters are random, so that an answer of
one token takes a few milliseconds and what is beside it shows: two with none of it, of which the second is the control
(A/A), one with each part alone, and one with all. Every text is asked of each server for `auto`, one request at a time,
in an order drawn for it, and a server is compared with the first on the texts that one adapter answered in both: by the
median of the pairs. Two processes that do the same may differ by a tenth as long as they run, which no number of texts
averages out: so each round starts all servers anew, and intervals are those of the rounds.

On a machine with other work a latency says how long a request waited for the processor. So beside it stands the
processor time of the server, by the kernel's clock of its process: what it spent from the request until shortly after
the answer, and, apart from that, by the second what it spent at other times, as on polling its registry and on writing
outcomes, which does not grow with the requests. No server loads an adapter meanwhile: each has a slot for all that are
asked for, and for one less than there are, so that ties are looked for.
"""

import ctypes
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from interval import Interval
from numpy.typing import NDArray
from rich.table import Table
from traitroute.adapters import Registry
from traitroute.serving.http.tenants import key_hash
from traitroute.serving.state import AUTO
from traitroute.serving.vllm import RunningServer

from .client import CHAT, chat
from .paired import over_rounds
from .stand import embedded_server, made_registry, tiny_base
from .topics import TOPICS

OPERATOR, TENANT = "the-operators-key", "a-tenants-key"
INCUMBENT, CANARY, SPARE = "cook", "cook2", "cook3"
"""The spare adapter gets no traffic anywhere."""
SHARE = 0.1
WARM_UP = 2
"""Texts of each topic that are asked before: adapters are loaded and proven by them."""
STARTED_AT_ONCE = 2
SETTLE_S = 0.005
"""What a server does for a request after its answer is done by then, unless it is left for later."""


@dataclass(frozen=True)
class Setting:
    """What one server is started with."""

    variables: Mapping[str, str] = field(default_factory=dict)
    has_tenant: bool = False
    has_canary: bool = False


CONTROL_GROUP = {"TRAITROUTE_HOLDBACK": "0.02", "TRAITROUTE_EXPLORE": "0.05"}
OUTCOMES = {"TRAITROUTE_OUTCOMES": "format,answered"}
TIES = {"TRAITROUTE_LOAD_COST": "20"}
OFF, ALL = "off", "all"
SETTINGS: Mapping[str, Setting] = {
    OFF: Setting(),
    "off again": Setting(),
    "control group": Setting(CONTROL_GROUP),
    "outcomes": Setting(OUTCOMES),
    "tenant": Setting(has_tenant=True),
    "canary": Setting(has_canary=True),
    "ties": Setting(TIES),
    ALL: Setting(CONTROL_GROUP | OUTCOMES | TIES, has_tenant=True, has_canary=True),
}


@dataclass(frozen=True)
class Timed:
    """How long one answer took, and the server's processor time for it, in ms; and what its headers say."""

    ms: float
    cpu_ms: float
    adapter: str
    arm: str


@dataclass(frozen=True)
class Cost:
    """Medians of one setting, and by how much it is above the first on the `compared` texts: latency in %, processor
    time in ms and in %. `aside_ms` is its processor time by the second while it was asked nothing.
    """

    compared: int
    median_ms: float
    more_percent: Interval
    cpu_ms: float
    more_cpu_ms: Interval
    more_cpu_percent: Interval
    aside_ms: Interval


@dataclass(frozen=True)
class Production:
    """What each setting costs; `arms` counts what the servers with all of it say of each text."""

    rounds: int
    texts: int
    costs: Mapping[str, Cost]
    arms: Mapping[str, int]
    fell_back: int

    def table(self) -> Table:
        """One line a setting."""
        shown = Table(title="auto at max_tokens=1: latency, and processor time of the server, ms", title_justify="left")
        for name in ("server", "pairs", "latency", "more, %", "processor", "more", "more, %", "aside, a second"):
            shown.add_column(name, justify="left" if name == "server" else "right")
        for server, cost in self.costs.items():
            more = f"{cost.more_percent:+.1f}", f"{cost.more_cpu_ms:+.2f}", f"{cost.more_cpu_percent:+.1f}"
            latency, ms, percent = ("", "", "") if server == OFF else more
            own = f"{cost.median_ms:.1f}", latency, f"{cost.cpu_ms:.2f}", ms, percent, f"{cost.aside_ms:.1f}"
            shown.add_row(server, f"{cost.compared}", *own)
        arms = ", ".join(f"{count} {arm}" for arm, count in sorted(self.arms.items()))
        shown.caption = (
            f"{self.rounds} rounds of {self.texts} texts; with all of it: {arms}; {self.fell_back} fell back"
        )
        return shown


def measure_production(rounds: int, count: int, track: Any, *, seed: int) -> tuple[Production, NDArray[np.float64]]:
    """Measure, and return the times too: latency and processor ms, (rounds, texts, `SETTINGS`, 2)."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        base = made_stand(Path(name))
        measured = [_measure_round(Path(name), base, f"{i}", count, rng) for i in track(range(rounds), "rounds")]
    answers = [each for each, _ in measured]
    times = np.array([[[(each.ms, each.cpu_ms) for each in row] for row in rows] for rows in answers])
    return summary(answers, np.array([aside_ms for _, aside_ms in measured])), times


def _measure_round(
    folder: Path, base: Path, name: str, count: int, rng: np.random.Generator
) -> tuple[list[list[Timed]], NDArray[np.float64]]:
    """What new servers answer, and their processor ms by the second aside, (`SETTINGS`,)."""
    asked = [text for rows in TOPICS.values() for text in rows]
    first = [f"{rows[i % len(rows)]} First {i}." for rows in TOPICS.values() for i in range(WARM_UP)]
    with made_servers(folder, base, name) as servers:
        for text in first:
            _answers(servers, text, rng)
        begun = [server.aside() for server in servers]
        texts = [f"{asked[int(rng.integers(len(asked)))]} Number {i} of {name}." for i in range(count)]
        answers = [_answers(servers, text, rng) for text in texts]
        seconds, cpu_s = np.array([server.aside() - then for server, then in zip(servers, begun, strict=True)]).T
    return answers, 1000 * cpu_s / seconds


def summary(rounds: Sequence[Sequence[Sequence[Timed]]], aside_ms: NDArray[np.float64]) -> Production:
    """What the answers say, of each round a row a text, each of all `SETTINGS`; `aside_ms` is (rounds, `SETTINGS`)."""
    every = [row for rows in rounds for row in rows]
    return Production(
        rounds=len(rounds),
        texts=len(rounds[0]),
        costs={
            server: _cost([_alike(rows, i) for rows in rounds], aside_ms[:, i]) for i, server in enumerate(SETTINGS)
        },
        arms=dict(Counter(row[-1].arm or "fallback" for row in every)),
        fell_back=sum(not each.arm for row in every for each in row),
    )


def _alike(rows: Sequence[Sequence[Timed]], place: int) -> NDArray[np.float64]:
    """Latency and processor time, (2, pairs, 2), of the first setting and another where one adapter answered."""
    pairs = [(row[0], row[place]) for row in rows]
    alike = [pair for pair in pairs if pair[0].adapter == pair[1].adapter and all(each.arm for each in pair)]
    return np.array([[[each.ms for each in pair], [each.cpu_ms for each in pair]] for pair in alike]).swapaxes(0, 1)


def _cost(rounds: Sequence[NDArray[np.float64]], aside_ms: NDArray[np.float64]) -> Cost:
    ms, cpu_ms = np.concatenate(rounds, axis=1)
    more = [np.median(100 * (each[..., 1] / each[..., 0] - 1), axis=-1) for each in rounds]
    return Cost(
        compared=len(ms),
        median_ms=float(np.median(ms[:, 1])),
        more_percent=over_rounds([latency for latency, _ in more]),
        cpu_ms=float(np.median(cpu_ms[:, 1])),
        more_cpu_ms=over_rounds([np.median(cpu[:, 1] - cpu[:, 0]) for _, cpu in rounds]),
        more_cpu_percent=over_rounds([cpu for _, cpu in more]),
        aside_ms=over_rounds(aside_ms),
    )


class Server:
    """A server that is asked one text at a time, and the processor time of its process."""

    def __init__(self, client: httpx.Client, pid: int) -> None:
        self._client = client
        self._clock = processor_clock(pid)
        # What passed while a request was under way, as `_now` has it.
        self._asked = np.zeros(2)

    def answer(self, text: str) -> Timed:
        """Ask for `auto`."""
        begin = self._now()
        answer = self._client.post(CHAT, json=chat(AUTO, text, max_tokens=1)).raise_for_status()
        seconds = time.perf_counter() - begin[0]
        time.sleep(SETTLE_S)
        passed = self._now() - begin
        self._asked += passed
        headers = answer.headers
        adapter, arm = headers["x-traitroute-adapter"], headers.get("x-traitroute-arm", "")
        return Timed(1000 * seconds, 1000 * float(passed[1]), adapter, arm)

    def aside(self) -> NDArray[np.float64]:
        """Seconds that passed while it was asked nothing, and those of its processor time, (2,)."""
        return self._now() - self._asked

    def _now(self) -> NDArray[np.float64]:
        return np.array([time.perf_counter(), time.clock_gettime(self._clock)])


def processor_clock(pid: int) -> int:
    """The number of the clock that counts the processor time of a process, all its threads together (POSIX)."""
    clock = ctypes.c_int()
    if error := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return clock.value


def made_stand(folder: Path) -> Path:
    """Make the registry that all servers get a copy of, and the tenants' file; return the base model's folder."""
    base = tiny_base(folder / "tiny")
    made_registry(folder / "made", base, twins={CANARY: INCUMBENT, SPARE: INCUMBENT}).close()
    with Registry.open(folder / "made" / "registry.db") as registry:
        for twin in (CANARY, SPARE):
            registry.set_canary(twin, 0.0)
    text = f'[tenants.team]\nkeys = ["{key_hash(TENANT)}"]\nadapters = {[*TOPICS, CANARY]}\n'
    (folder / "tenants.toml").write_text(text)
    return base


@contextmanager
def made_servers(folder: Path, base: Path, name: str) -> Iterator[list[Server]]:
    """A server of each of the `SETTINGS`, which have registries of their own."""
    with ExitStack() as stack, ThreadPoolExecutor(STARTED_AT_ONCE) as pool:

        def start(place: int, setting: Setting) -> Server:
            of_its_own = folder / f"{name}-{place}"
            shutil.copytree(folder / "made", of_its_own)
            if setting.has_canary:
                with Registry.open(of_its_own / "registry.db") as registry:
                    registry.set_canary(CANARY, SHARE, replaces=INCUMBENT)
            server = stack.enter_context(_served(of_its_own, base, setting, folder / "tenants.toml"))
            return Server(stack.enter_context(_client(server.base_url, setting)), server.pid)

        yield list(pool.map(start, range(len(SETTINGS)), SETTINGS.values()))


def _served(folder: Path, base: Path, setting: Setting, tenants: Path) -> AbstractContextManager[RunningServer]:
    # One slot less than adapters. Threads that wait for each other spin, which would be taken for work.
    options = ["--api-key-env", "BENCHMARK_KEY", "--max-loras", str(len(TOPICS) + 1)]
    variables = {"BENCHMARK_KEY": OPERATOR, "OMP_NUM_THREADS": "1", **setting.variables}
    if setting.has_tenant:
        variables["TRAITROUTE_TENANTS"] = str(tenants)
    return embedded_server(folder, base, options=options, variables=variables)


def _client(url: str, setting: Setting) -> httpx.Client:
    key = TENANT if setting.has_tenant else OPERATOR
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=120)


def _answers(servers: Sequence[Server], text: str, rng: np.random.Generator) -> list[Timed]:
    """What each server makes of a text, in the order of `SETTINGS`."""
    answers = {int(i): servers[i].answer(text) for i in rng.permutation(len(servers))}
    return [answers[i] for i in range(len(servers))]
