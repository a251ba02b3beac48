"""A scripted day: adapters are added, replaced, removed and poisoned under steady load, while a worker measures them.

    python benchmarks/scripted_day.py --json day.json

Counts what clients saw before, during and after: errors, latencies, wrong answers; how long each adapter took to become
routable; and which decisions changed that had nothing to do with the adapters that came, changed or went.

Needs vLLM (on CPUs its CPU build), and the extras `profile`, `worker` and `dev`. What it found: docs/worker.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from reprofiling.stand import LiveSystem
from reprofiling.steady_clients import steady_clients
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file
from serving.client import Answer
from serving.load import seen_status
from serving.stand import TINY_WEIGHTS, adapter_record, save_adapter
from serving.topics import TOPICS
from traitroute.adapters import AdapterState, Registry
from traitroute.profiling.profile import quiet_libraries
from traitroute.router import Router
from traitroute.serving.vllm import free_port

console = Console(width=120)
ADDED = tuple(f"added-{i}" for i in range(5))
REPLACED, REMOVED, POISONED = "doctor", "critic", "poisoned"
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Phase:
    """What clients saw in one part of the day; latencies in seconds."""

    name: str
    seconds: float
    requests: int
    statuses: dict[str, int]
    median_s: float
    p99_s: float

    @classmethod
    def of(cls, name: str, answers: Sequence[Answer], since: float, until: float) -> "Phase":
        """Count the answers to requests that were made in a time."""
        made = [a for a in answers if since <= a.began < until]
        took = np.array([a.seconds for a in made]) if made else np.zeros(1)
        return cls(
            name,
            until - since,
            len(made),
            dict(Counter(seen_status(a) for a in made)),
            float(np.median(took)),
            float(np.quantile(took, 0.99)),
        )


@dataclass(frozen=True)
class Day:
    """The phases; seconds from adding to routable, and until the poisoned one was set aside, and why; changed
    decisions, those `outside` concern no adapter of the script.
    """

    phases: tuple[Phase, ...]
    routable_s: dict[str, float]
    set_aside_s: float
    poisoned: str
    decisions: int
    changed: int
    outside: int
    verdicts: dict[str, int]

    def tables(self) -> list[Table]:
        """The phases, and the rest."""
        phases, rest = Table(), Table("", "", show_header=False)
        for name in ("phase", "s", "requests", "statuses", "median ms", "p99 ms"):
            phases.add_column(name)
        for p in self.phases:
            figures = (f"{p.seconds:.0f}", f"{p.requests}", str(p.statuses))
            phases.add_row(p.name, *figures, f"{1000 * p.median_s:.0f}", f"{1000 * p.p99_s:.0f}")
        for name, value in asdict(self).items():
            if name != "phases":
                rest.add_row(name, str(value))
        return [phases, rest]


def main() -> None:
    """Live through the day, and print."""
    arguments = _arguments()
    quiet_libraries()
    with (
        tempfile.TemporaryDirectory() as folder,
        Registry.create(Path(folder) / "day.db") as registry,
    ):
        system = LiveSystem(Path(folder), registry, free_port())
        try:
            day = _live(system, arguments.calm, arguments.share)
        finally:
            system.close()
    console.print(*day.tables())
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(day), indent=1) + "\n")
    sys.exit(1 if day.outside or not day.poisoned else 0)


def _live(system: LiveSystem, calm_s: float, share: float) -> Day:
    system.profile()
    system.start_server()
    before = _decisions(system)
    with steady_clients(system, but=(REPLACED, REMOVED)) as clients:
        assert system.server is not None
        system.start_worker(system.server.base_url, share=share)
        # The worker's own start is no part of the day.
        time.sleep(calm_s)
        times = [time.monotonic()]
        time.sleep(calm_s)
        times.append(time.monotonic())
        routable = _change_everything(system)
        times.append(time.monotonic())
        time.sleep(calm_s)
        times.append(time.monotonic())
        answers = list(clients.answers)
    set_aside_s = routable.pop(POISONED)
    names = ("before", "during", "after")
    phases = [Phase.of(n, answers, *times[i : i + 2]) for i, n in enumerate(names)]
    after = _decisions(system)
    touched = {*ADDED, REPLACED, REMOVED}
    changed = [text for text, name in before.items() if after[text] != name]
    outside = [text for text in changed if not {before[text], after[text]} & touched]
    return Day(
        phases=tuple(phases),
        routable_s=routable,
        set_aside_s=set_aside_s,
        poisoned=system.registry.adapter(POISONED).note or "",
        decisions=len(before),
        changed=len(changed),
        outside=len(outside),
        verdicts=clients.verdicts(),
    )


def _change_everything(system: LiveSystem) -> dict[str, float]:
    """Add five adapters, replace one, remove one and poison one; returns the seconds until each was routable or set
    aside.
    """
    registry, began = system.registry, dict[str, float]()
    for i, name in enumerate(ADDED):
        began[name] = time.monotonic()
        system.add(name, 200 + i)
    began[REPLACED] = time.monotonic()
    system.replace(REPLACED, 300)
    registry.remove_adapter(REMOVED)
    began[POISONED] = time.monotonic()
    _poison(system)
    ended: dict[str, float] = {}
    until = time.monotonic() + PATIENCE_S
    while began.keys() - ended.keys() and time.monotonic() < until:
        for name in began.keys() - ended.keys():
            waits = registry.replacement(name) is not None
            if not waits and registry.adapter(name).state is not AdapterState.PENDING:
                ended[name] = time.monotonic() - began[name]
        time.sleep(0.1)
    return {name: round(seconds, 1) for name, seconds in ended.items()}


def _poison(system: LiveSystem) -> None:
    """Record an adapter whose matrices are for a model of half the width; `adapters add` would refuse it."""
    folder = save_adapter(system.base, system.folder / "poison", seed=400, weights=TINY_WEIGHTS)
    weights = folder / "adapter_model.safetensors"
    narrow = {
        name: np.ascontiguousarray(value[:, ::2] if "lora_A" in name else value[::2])
        for name, value in load_file(weights).items()
    }
    save_file(narrow, weights)
    record = adapter_record(system.registry, folder, POISONED, system.base)
    system.registry.add_adapter(record.model_copy(update={"state": AdapterState.PENDING}))


def _decisions(system: LiveSystem) -> dict[str, str | None]:
    """Who answers each of many requests, by the registry as it is now."""
    router = Router.from_registry(system.registry)
    rows = [text for topic in TOPICS.values() for text in topic]
    texts = [f"{text} {word}".strip() for text in rows for word in ("", *"abcdefgh")]
    return {text: router.route(text).adapter for text in texts}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calm", type=float, default=30, help="seconds before and after (30)")
    parser.add_argument("--share", type=float, default=0.1, help="of a row that is measured (0.1)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
