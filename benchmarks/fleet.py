"""Which replica should a request for an adapter go to? A fleet of a thousand, simulated.

    python benchmarks/fleet.py                              the tables: 10,000 adapters, 1,000 replicas, five seeds
    python benchmarks/fleet.py --replicas 50 --adapters 500 --seconds 60 --seeds 1
    python benchmarks/fleet.py --trace TRACE.csv            arrivals and lengths of a trace: time, tokens read, written;
                                                            of Mooncake's, in JSON lines, too
    python benchmarks/fleet.py --json out.json --picture out.png

What is simulated, and what is not, is said in fleet/simulation.py. *Hit* is the share of requests whose adapter the
replica held, *wait* the time until an answer begins (a free seat, and the adapter), *imbalance* how many times the mean
of all replicas the busiest twentieth was asked, *loads* how many adapters all replicas together load a second. The
first third of the time is left out. Requests are for adapters by Zipf's law, or for those that our router chooses among
10,000 drawn like the measured ones; there *lost* is the score, in points, that ties cost.

Then three events, with bounded affinity: a twentieth of the replicas die; the hottest adapter is replaced; a hundred
adapters arrive and take a tenth of the requests. Figures are of the minute after that.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fleet.simulation import POLICIES, Arrivals, Served, simulate
from fleet.workload import Demand, arrivals, routed, zipf
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SKEWS = (0.6, 1.0, 1.4)
TIES = "bounded affinity, ties"
FIGURES = ("hit", "wait_p50", "wait_p99", "imbalance", "loads_s", "lost")
LEAST_WAIT_S, QUEUE_FULL_S = 0.01, 10_000.0
"""The ends of the picture's axis."""


def main() -> None:
    """Simulate, and print."""
    given = _arguments()
    demands = [zipf(given.adapters, skew) for skew in SKEWS]
    if not given.no_router:
        demands.append(routed(given.adapters, given.worth))
    console = Console(width=150)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("runs", total=given.seeds * sum(1 for _ in _runs(demands)) + given.seeds * 3)
        for demand, policy in _runs(demands):
            seeds = []
            for seed in range(given.seeds):
                asked = _arrivals(given, demand, seed)
                seeds.append(_steady(demand, asked, _serve(given, asked, policy, seed), given))
                progress.advance(bar)
            found.setdefault(demand.name, {})[policy] = _summary(seeds)
        events = {name: _summary(rows) for name, rows in _events(given, demands[1], lambda: progress.advance(bar))}
    _print(found, events, given, console)
    if given.json:
        given.json.write_text(json.dumps({"steady": found, "events": events}, indent=1))
    if given.picture:
        _draw(found, given.picture)


def _runs(demands: Sequence[Demand]) -> Iterator[tuple[Demand, str]]:
    for demand in demands:
        for policy in POLICIES:
            if policy != TIES or (demand.adapters[:, 1] >= 0).any():
                yield demand, policy


def _arrivals(given: argparse.Namespace, demand: Demand, seed: int) -> Arrivals:
    return arrivals(
        demand, given.trace, replicas=given.replicas, seconds=given.seconds, load=given.load, seed=1000 + seed
    )


def _serve(given: argparse.Namespace, asked: Arrivals, policy: str, seed: int, **more: Any) -> Served:
    options = {"replicas": given.replicas, "slots": given.slots, "load_s": given.load_s, "slack": given.slack}
    return simulate(asked, policy, **options, **more, seed=seed)


def _steady(demand: Demand, asked: Arrivals, served: Served, given: argparse.Namespace) -> dict[str, float]:
    kept = asked.at > given.seconds / 3
    figures = _figures(asked, served, kept, given.replicas)
    if (demand.adapters[:, 1] >= 0).any():
        best, scores = _scores(demand, asked, served)
        figures["lost"] = 100 * float((best - scores)[kept].mean())
    return figures


def _figures(asked: Arrivals, served: Served, kept: Any, replicas: int) -> dict[str, float]:
    per_replica = np.sort(np.bincount(served.replica[kept], minlength=replicas))
    top = per_replica[-max(1, replicas // 20) :].mean() / per_replica.mean()
    wait = served.wait[kept]
    held = served.held[kept][np.isfinite(wait)]
    spent = float(np.ptp(asked.at[kept]))
    return {
        "hit": float(held.mean()),
        "wait_p50": float(np.quantile(wait, 0.5, method="higher")),
        "wait_p99": float(np.quantile(wait, 0.99, method="higher")),
        "imbalance": float(top),
        "loads_s": float((~held).sum() / spent),
    }


def _scores(demand: Demand, asked: Arrivals, served: Served) -> tuple[Any, Any]:
    """The score of the best, and of whoever answered, of each request: kinds are told apart by their adapters."""
    places: dict[bytes, list[int]] = {}
    for kind, row in enumerate(demand.adapters):
        places.setdefault(row.tobytes(), []).append(kind)
    means = {key: demand.scores[kinds].mean(axis=0) for key, kinds in places.items()}
    rows = np.array([means[row.tobytes()] for row in asked.adapters])
    place = (asked.adapters == served.adapter[:, None]).argmax(axis=1)
    return rows[:, 0], rows[np.arange(len(rows)), place]


def _events(given: argparse.Namespace, demand: Demand, done: Any) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """What the minute after each event was like, and the one before."""
    found: dict[str, list[dict[str, float]]] = {}
    at = given.seconds / 2
    for seed in range(given.seeds):
        asked = _arrivals(given, demand, seed)
        after = (asked.at >= at) & (asked.at < at + 60)
        calm = _serve(given, asked, "bounded affinity", seed)
        found.setdefault("nothing happens", []).append(_figures(asked, calm, after, given.replicas))
        dead = _serve(given, asked, "bounded affinity", seed, deaths=(at, 0.05))
        found.setdefault("5% of the replicas die", []).append(_figures(asked, dead, after, given.replicas))
        done()
        hot = int(demand.share.argmax())
        renamed = np.where((asked.adapters == hot) & (asked.at >= at)[:, None], given.adapters, asked.adapters)
        new = replace(asked, adapters=renamed)
        served = _serve(given, new, "bounded affinity", seed)
        of_hot = after & (new.adapters[:, 0] == given.adapters)
        found.setdefault("the hottest adapter is replaced", []).append(_figures(new, served, after, given.replicas))
        found.setdefault("  its own requests", []).append(_figures(new, served, of_hot, given.replicas))
        done()
        rng = np.random.default_rng(seed)
        moved = (asked.at >= at) & (rng.random(len(asked)) < 0.1)
        arrived = asked.adapters.copy()
        arrived[moved, 0] = given.adapters + rng.integers(0, 100, int(moved.sum()))
        more = replace(asked, adapters=arrived)
        served = _serve(given, more, "bounded affinity", seed)
        found.setdefault("100 adapters arrive", []).append(_figures(more, served, after, given.replicas))
        found.setdefault("  their own requests", []).append(_figures(more, served, after & moved, given.replicas))
        done()
    yield from found.items()


def _summary(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The mean over seeds, and the least and greatest."""
    return {
        name: {"mean": float(np.mean(v)), "low": float(np.min(v)), "high": float(np.max(v))}
        for name in FIGURES
        if (v := [row[name] for row in rows if name in row])
    }


def _print(
    found: dict[str, dict[str, dict[str, Any]]],
    events: dict[str, dict[str, Any]],
    given: argparse.Namespace,
    console: Console,
) -> None:
    title = (
        f"{given.adapters} adapters, {given.replicas} replicas of {given.slots} adapters, {given.load_s:g} s a load, "
        f"seats {given.load:.0%} busy, {given.seeds} seeds: mean [least, greatest]"
    )
    for name, by_policy in (*found.items(), ("after an event, bounded affinity, Zipf 1.0", events)):
        table = Table(title=f"{name}; {title}", title_justify="left")
        table.add_column("policy" if by_policy is not events else "event")
        for column in ("hit", "wait p50, s", "wait p99, s", "imbalance", "loads a second", "lost, points"):
            table.add_column(column, justify="right")
        for policy, figures in by_policy.items():
            table.add_row(policy, *(_cell(figures.get(figure)) for figure in FIGURES))
        console.print(table)


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    if np.isinf(figure["high"]):
        return "queue full"
    form = ".0f" if figure["mean"] >= 100 else ".2f"
    mean, low, high = (f"{figure[name]:{form}}" for name in ("mean", "low", "high"))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _draw(found: dict[str, dict[str, dict[str, Any]]], file: Path) -> None:
    """Hits against the longest waits, a point a policy and demand; full queues are drawn at the end."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 4), sharey=True, squeeze=False)
    for axis, (name, by_policy) in zip(axes[0], found.items(), strict=True):
        for marker, (policy, figures) in zip("os^Dv", by_policy.items(), strict=False):
            wait = np.clip(figures["wait_p99"]["mean"], LEAST_WAIT_S, QUEUE_FULL_S)
            # Hollow, of falling size: points of several policies lie on each other.
            size = 160 - 30 * POLICIES.index(policy)
            color = f"C{POLICIES.index(policy)}"
            axis.scatter(
                wait, figures["hit"]["mean"], size, marker=marker, facecolors="none", edgecolors=color, label=policy
            )
        axis.set(xscale="log", title=name, ylim=(0, 1.05), xlim=(LEAST_WAIT_S / 2, 2 * QUEUE_FULL_S))
        axis.set_xlabel(f"wait, p99 (s); at {LEAST_WAIT_S:g}: none, at {QUEUE_FULL_S:g}: queue full")
    axes[0][0].set_ylabel("adapter held (share)")
    axes[0][-1].legend(fontsize=7, loc="center right", labelspacing=1.2)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=1_000)
    parser.add_argument("--slots", type=int, default=32, help="adapters that a replica holds")
    parser.add_argument("--load-s", type=float, default=0.25, help="seconds that an adapter takes to load")
    parser.add_argument("--load", type=float, default=0.7, help="share of the seats that is busy")
    parser.add_argument("--slack", type=float, default=2.0, help="requests above the mean that affinity may cost")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worth", type=float, default=0.01, help="score that a tie may cost by prediction")
    parser.add_argument("--trace", type=Path, help="arrivals and lengths: CSV, or Mooncake's .jsonl")
    parser.add_argument("--no-router", action="store_true", help="only demands by Zipf's law")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
