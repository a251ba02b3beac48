"""What routing inside a real `vllm serve` costs, keeps, bears and survives: one question a command.

    python benchmarks/serving.py overhead          `auto` beside naming the same adapter, and a control
    python benchmarks/serving.py extproc           a real Envoy with `serve-extproc` beside that Envoy alone; a control
    python benchmarks/serving.py production        control group, outcomes, tenants, canary, ties; a control
    python benchmarks/serving.py throughput        `vllm bench serve` for `auto` and by the adapter's name; a control
    python benchmarks/serving.py sessions          prefix-cache hits of conversations, sticky or not
    python benchmarks/serving.py load              hundreds of streams at a time: wrong answers, failures, memory
    python benchmarks/serving.py burst             hundreds of requests at one instant: how many are routed in time
    python benchmarks/serving.py replacement       an adapter's weights replaced under load: which weights answer when
    python benchmarks/serving.py canary            an adapter that is let in by its users, and one that is not
    python benchmarks/serving.py faults            what clients see of a deleted registry, a SIGTERM and so on

Each starts its own server and stops it. `overhead`, `throughput` and `sessions` serve SmolLM2-135M, with the registry
of a finished run (--registry) or with adapters of random weights and a fitted profile made on the spot; the others
serve a two-layer model whose adapters cannot be mistaken for each other, `production` with the embedded engine and
`canary` with either. Behind `extproc` answers a server without a model. The figures and what they mean: docs/serving.md
and docs/envoy.md.

Needs vLLM (on CPUs its CPU build) and the extras `profile` and `dev`.
"""

import argparse
import asyncio
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from latency.texts import read_rows
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from serving.burst import measure_bursts
from serving.burst import table as bursts_table
from serving.canary import TWINS, measure_canaries
from serving.extproc import measure_extproc
from serving.fault_injection import PLAIN, STRIKES
from serving.faults import measure_faults
from serving.faults import table as faults_table
from serving.load import OPTIONS as LOAD_OPTIONS
from serving.load import SAMPLE_S, measure_load
from serving.overhead import OPTIONS, measure_overhead
from serving.production import measure_production
from serving.replacement import measure_replacement
from serving.sessions import measure_sessions
from serving.stand import embedded_stand, gateway_stand, packaged_stand, tiny_stand
from serving.throughput import measure_throughput
from traitroute.adapters import TraitRouteError
from traitroute.profiling.profile import quiet_libraries

console = Console(width=150)
PACKAGES = ("vllm", "torch", "starlette", "uvicorn", "httpx")


@dataclass(frozen=True)
class Found:
    """What a command found: to be shown, and to be written as JSON."""

    shown: RenderableType
    record: dict[str, Any]


def main() -> None:
    """Run one command, print its table, and write its figures where asked."""
    arguments = _arguments()
    quiet_libraries()
    stated = conditions()
    try:
        with _bars() as bars:
            found = arguments.run(arguments, bars)
    except TraitRouteError as exc:
        sys.exit(f"error: {exc}")
    stated["load_average_after"] = os.getloadavg()[0]
    console.print(found.shown, sentence(stated), highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(stated | found.record, indent=1, default=_plain) + "\n")


def overhead(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure what `auto` costs."""
    rows = read_rows(None, np.random.default_rng(arguments.seed))
    options = (*OPTIONS, *arguments.vllm)
    with packaged_stand(arguments.registry, rows, options=options) as stand:
        found, times = measure_overhead(stand, arguments.texts, _tracks(bars), seed=arguments.seed)
    return Found(found.table(), asdict(found) | {"ms": times.round(3).tolist()})


def extproc(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure what routing behind Envoy costs."""
    found, times = measure_extproc(arguments.texts, _tracks(bars), seed=arguments.seed)
    return Found(found.table(), asdict(found) | {"ms": times.round(3).tolist()})


def production(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure what all that proves itself on live traffic costs."""
    found, times = measure_production(arguments.rounds, arguments.texts, _tracks(bars), seed=arguments.seed)
    return Found(found.table(), asdict(found) | {"ms": times.round(3).tolist()})


def throughput(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure how many requests a second vLLM's own benchmark gets through."""
    rows = read_rows(None, np.random.default_rng(arguments.seed))
    # Only then has vLLM a path that resets the prefix cache.
    variables = {"VLLM_SERVER_DEV_MODE": "1"}
    with packaged_stand(arguments.registry, rows, options=arguments.vllm, variables=variables) as stand:
        found, rates = measure_throughput(
            stand,
            arguments.rounds,
            arguments.requests,
            arguments.concurrency,
            arguments.tokens,
            _tracks(bars),
            seed=arguments.seed,
        )
    return Found(found.table(), asdict(found) | {"rates": rates.round(4).tolist()})


def sessions(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure what staying on one adapter saves."""
    rows = read_rows(None, np.random.default_rng(arguments.seed))
    with packaged_stand(arguments.registry, rows, options=arguments.vllm) as stand:
        found, turns = measure_sessions(stand, arguments.conversations, _tracks(bars), seed=arguments.seed)
    return Found(found.table(), asdict(found) | {"turns": [asdict(t) for t in turns]})


def load(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure what many streams meet."""
    bar = bars.add_task("load", total=int(arguments.seconds / SAMPLE_S))
    options = (*LOAD_OPTIONS, *arguments.vllm)
    plain = partial(tiny_stand, plugin=not arguments.plain)
    with (gateway_stand if arguments.gateway else plain)(options=options) as stand:
        found = asyncio.run(
            measure_load(
                stand,
                arguments.concurrency,
                arguments.seconds,
                lambda: bars.advance(bar),
                auto=0.0 if arguments.plain else 0.5,
                seed=arguments.seed,
            )
        )
    return Found(found.table(), asdict(found))


def burst(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Measure what comes of many requests at once."""
    with tiny_stand(options=arguments.vllm) as stand:
        found = asyncio.run(
            measure_bursts(stand, arguments.sizes, arguments.bursts, _tracks(bars), seed=arguments.seed)
        )
    return Found(bursts_table(found), {"bursts": [asdict(each) for each in found]})


def replacement(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Replace an adapter under load."""
    with tiny_stand(options=arguments.vllm) as stand:
        found = asyncio.run(measure_replacement(stand, arguments.concurrency, arguments.hold, seed=arguments.seed))
    return Found(found.table(), asdict(found))


def canary(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Let canaries in."""
    served = tiny_stand(twins=TWINS, options=arguments.vllm) if arguments.on == "vllm" else embedded_stand(twins=TWINS)
    with served as stand:
        found = measure_canaries(stand, arguments.conversations, _tracks(bars), seed=arguments.seed)
    return Found(found.table(), asdict(found))


def faults(arguments: argparse.Namespace, bars: Progress) -> Found:
    """Strike the faults."""
    names = [PLAIN] if arguments.plain else arguments.only or list(STRIKES)
    track = _tracks(bars)
    with tiny_stand(options=arguments.vllm, plugin=not arguments.plain) as stand:
        found = asyncio.run(
            measure_faults(
                stand,
                track(names, "faults"),
                arguments.concurrency,
                arguments.hold,
                auto=0.0 if arguments.plain else 0.5,
                seed=arguments.seed,
            )
        )
    return Found(faults_table(found, arguments.concurrency), {"faults": [asdict(seen) for seen in found]})


def conditions() -> dict[str, Any]:
    """When, where and with what."""
    return {
        "command": shlex.join(["python", "benchmarks/serving.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_average_before": os.getloadavg()[0],
    }


def sentence(stated: dict[str, Any]) -> str:
    """The conditions in one sentence."""
    packages = ", ".join(f"{name} {v}" for name, v in stated["packages"].items())
    before, after = stated["load_average_before"], stated["load_average_after"]
    return (
        f"{stated['date']}, {stated['cores']} cores of {stated['processor']}, Python {stated['python']}, {packages}; "
        f"load average {before:.1f} before, {after:.1f} after"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _bars() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))


def _tracks(bars: Progress) -> Callable[[Any, str], Iterable[Any]]:
    return lambda items, name: bars.track(items, description=name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = (overhead, extproc, production, throughput, sessions, load, burst, replacement, canary, faults)
    commands = parser.add_subparsers(required=True, metavar="|".join(r.__name__ for r in runs))
    for run in runs:
        module = sys.modules[f"serving.{run.__name__}"]
        command = commands.add_parser(
            run.__name__,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
        command.add_argument("--seed", type=int, default=0, help="of texts and orders [0]")
        if run not in (extproc, production):
            command.add_argument(
                "--vllm", action="append", default=[], metavar="FLAG", help="of `vllm serve`; repeatable"
            )
        _add_options(command, run.__name__)
    return parser.parse_args()


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    if name in ("overhead", "throughput", "sessions"):
        add("--registry", type=Path, help="of a finished run; by default one is made")
    if name == "overhead":
        add("--texts", type=int, default=200, help="each is asked three times [200]")
    if name == "extproc":
        add("--texts", type=int, default=200, help="each is asked in four forms and six ways [200]")
    if name == "production":
        add("--rounds", type=int, default=6, help="2 or more; each starts eight servers anew [6]")
        add("--texts", type=int, default=50, help="of a round, each asked of the eight servers [50]")
    if name == "throughput":
        add("--rounds", type=int, default=8, help="each is three runs [8]")
        add("--requests", type=int, default=64, help="of a run [64]")
        add("--concurrency", type=int, default=16, help="requests at a time [16]")
        add("--tokens", type=int, default=32, help="of an answer [32]")
    if name == "sessions":
        add("--conversations", type=int, default=12, help="each is held both ways [12]")
    if name == "canary":
        add("--conversations", type=int, default=100, help="of each of two topics [100]")
        add("--on", choices=["embedded", "vllm"], default="embedded", help="the engine [embedded]")
    if name == "load":
        add("--concurrency", type=int, default=500, help="streams at a time [500]")
        add("--seconds", type=float, default=180, help="how long [180]")
    if name in ("load", "faults"):
        plain = "vLLM without the plugin, adapters by name alone"
        only = f", and {PLAIN} alone" if name == "faults" else ""
        add("--plain", action="store_true", help=plain + only)
    if name == "load":
        gateway = "a gateway before vLLM without the plugin, which loads what the gateway has it load"
        add("--gateway", action="store_true", help=gateway)
    if name == "replacement":
        add("--concurrency", type=int, default=200, help="streams at a time [200]")
        add("--hold", type=float, default=20, help="seconds of each phase [20]")
    if name == "burst":
        add("--sizes", type=int, nargs="+", default=[50, 100, 200, 500], metavar="REQUESTS")
        add("--bursts", type=int, default=10, help="of each size [10]")
    if name == "faults":
        add("--concurrency", type=int, default=16, help="streams at a time [16]")
        add("--hold", type=float, default=10, help="seconds that each fault lasts [10]")
        add("--only", nargs="+", choices=list(STRIKES), metavar="FAULT", help=", ".join(STRIKES))


if __name__ == "__main__":
    main()
