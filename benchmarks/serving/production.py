"""What control group, outcomes, tenants, a canary and ties cost, each alone and all together, against a server without.

Servers of `traitroute serve --engine transformers` of a two-layer model whose adapters are random, so that an answer of
one token takes a few milliseconds and what is beside it shows: two with none of it, of which the second is the control
(A/A), one with each part alone, and one with all. Every text is asked of each server for `auto`, one request at a time,
in an order drawn for it, and a server is compared with the first on the texts that one adapter answered in both.

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
from .paired import Difference, median_percent_more
from .stand import embedded_server, made_registry, tiny_base
from .topics import TOPICS

OPERATOR, TENANT = "the-operators-key", "a-tenants-key"
INCUMBENT, CANARY, SPARE = "cook", "cook2", "cook3"
"""The spare adapter gets no traffic anywhere."""
SHARE = 0.1
WARM_UP = 6
"""Texts of each topic that are asked before: adapters are loaded and proven by them."""
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
    """Medians of one server, and how it differs from the first on the `compared` texts: latency in %, processor ms.

    `aside_ms` is its processor time by the second while it was asked nothing.
    """

    compared: int
    median_ms: float
    more_percent: Interval
    cpu_ms: float
    more_cpu: Difference
    aside_ms: float


@dataclass(frozen=True)
class Production:
    """What each server costs; `arms` counts what the one with all of it says of each text."""

    texts: int
    costs: Mapping[str, Cost]
    arms: Mapping[str, int]
    fell_back: int

    def table(self) -> Table:
        """One line a server."""
        shown = Table(title="auto at max_tokens=1: latency, and processor time of the server, ms", title_justify="left")
        for name in ("server", "pairs", "latency", "more, %", "processor", "more", "more, %", "aside, a second"):
            shown.add_column(name, justify="left" if name == "server" else "right")
        for server, cost in self.costs.items():
            cpu = cost.more_cpu
            more = "", f"{cost.more_percent:+.1f}", f"{cpu.median_ms:+.2f}", f"{cpu.percent:+.1f}"
            _, latency, ms, percent = ("",) * 4 if server == OFF else more
            own = f"{cost.median_ms:.1f}", latency, f"{cost.cpu_ms:.2f}", ms, percent, f"{cost.aside_ms:.1f}"
            shown.add_row(server, f"{cost.compared}", *own)
        arms = ", ".join(f"{count} {arm}" for arm, count in sorted(self.arms.items()))
        shown.caption = f"{self.texts} texts; with all of it: {arms}; {self.fell_back} fell back"
        return shown


def measure_production(count: int, track: Any, *, seed: int) -> tuple[Production, NDArray[np.float64]]:
    """Measure, and return the times too: latency and processor ms, (texts, `SETTINGS`, 2)."""
    rng = np.random.default_rng(seed)
    asked = [text for rows in TOPICS.values() for text in rows]
    first = [f"{rows[i % len(rows)]} First {i}." for rows in TOPICS.values() for i in range(WARM_UP)]
    texts = [f"{asked[int(rng.integers(len(asked)))]} Number {i}." for i in range(count)]
    with made_servers() as servers:
        for text in track(first, "loading"):
            _answers(servers, text, rng)
        begun = [server.aside() for server in servers]
        answers = [_answers(servers, text, rng) for text in track(texts, "timed texts")]
        aside = [server.aside() - before for server, before in zip(servers, begun, strict=True)]
    times = np.array([[(each.ms, each.cpu_ms) for each in row] for row in answers])
    return summary(answers, [1000 * cpu_s / s for s, cpu_s in aside], rng), times


def summary(answers: Sequence[Sequence[Timed]], aside_ms: Sequence[float], rng: np.random.Generator) -> Production:
    """What the answers say, a row a text, each of all `SETTINGS`."""
    return Production(
        texts=len(answers),
        costs={
            server: _cost([(row[0], row[i]) for row in answers], aside_ms[i], rng) for i, server in enumerate(SETTINGS)
        },
        arms=dict(Counter(row[-1].arm or "fallback" for row in answers)),
        fell_back=sum(not each.arm for row in answers for each in row),
    )


def _cost(pairs: Sequence[tuple[Timed, Timed]], aside_ms: float, rng: np.random.Generator) -> Cost:
    alike = [(off, on) for off, on in pairs if off.adapter == on.adapter and off.arm and on.arm]
    times = np.array([[(each.ms, each.cpu_ms) for each in pair] for pair in alike])
    (ms_off, cpu_off), (ms, cpu) = times.transpose(1, 2, 0)
    return Cost(
        compared=len(alike),
        median_ms=float(np.median(ms)),
        more_percent=median_percent_more(ms, ms_off, rng),
        cpu_ms=float(np.median(cpu)),
        more_cpu=Difference.of(cpu, cpu_off, rng),
        aside_ms=aside_ms,
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


@contextmanager
def made_servers() -> Iterator[list[Server]]:
    """A server of each of the `SETTINGS`, which have registries of their own."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        base = tiny_base(folder / "tiny")
        made_registry(folder / "made", base, twins={CANARY: INCUMBENT, SPARE: INCUMBENT}).close()
        with Registry.open(folder / "made" / "registry.db") as registry:
            for twin in (CANARY, SPARE):
                registry.set_canary(twin, 0.0)
        tenants = folder / "tenants.toml"
        tenants.write_text(f'[tenants.team]\nkeys = ["{key_hash(TENANT)}"]\nadapters = {[*TOPICS, CANARY]}\n')
        started = []
        for i, setting in enumerate(SETTINGS.values()):
            of_its_own = folder / f"{i}"
            shutil.copytree(folder / "made", of_its_own)
            if setting.has_canary:
                with Registry.open(of_its_own / "registry.db") as registry:
                    registry.set_canary(CANARY, SHARE, replaces=INCUMBENT)
            started.append(stack.enter_context(_served(of_its_own, base, setting, tenants)))
        yield [
            Server(stack.enter_context(_client(server.base_url, setting)), server.pid)
            for server, setting in zip(started, SETTINGS.values(), strict=True)
        ]


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
