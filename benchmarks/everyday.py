"""Do everyday requests, like which nothing was profiled, go to base? And what does it cost on new kinds of task?

    python benchmarks/everyday.py                          from the committed outcomes; no model is run
    python benchmarks/everyday.py --groups 8,16 --expected 0,0.06
    python benchmarks/everyday.py --registry runs/demo/registry.db     what its adapters score on everyday requests

Groups of the table are left out by turns, of those to design on, and some of the others are profiled (0: all). Shown
are the mean gain over base on the groups left out, each alike, in points; how many of them lose more than two points;
the share of their requests that goes to base; and the share of the thirty everyday requests in `routing/off_topic.txt`,
none of which the router knows, that goes to an adapter. Each for several expected shares of everyday requests
(`traitroute.router.everyday.EXPECTED`), 0 being the router without them.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.ours import OurRouter
from routing.protocols import Fold
from routing.seen import see
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import complete_table, fold_list, scores_of
from traitroute.adapters import Registry
from traitroute.profiling import open_base_model
from traitroute.router import Router, RoutingProfile
from traitroute.router.everyday import EXPECTED, everyday_requests
from traitroute.serving import EngineRequest, open_engine

OFF_TOPIC = Path(__file__).parent / "routing" / "off_topic.txt"
MAX_TOKENS = 40


@dataclass(frozen=True)
class Asked:
    """What came of the requests of one fold: their `gains` and `groups` (n,), which went `to_base` (n,), and the share
    of everyday requests that went to an adapter."""

    gains: NDArray[np.float64]
    groups: NDArray[np.str_]
    to_base: NDArray[np.bool_]
    misrouted: float


def ask(table: OutcomeTable, score: str, size: int, expected: list[float]) -> Iterator[tuple[float, Asked]]:
    """Leave groups out, profile `size` of the others (0: all), and route both kinds of request."""
    everyday = OFF_TOPIC.read_text().splitlines()
    draw = np.random.default_rng(0)
    scores = scores_of(table, score)
    for fold in fold_list(table, "group_left_out"):
        seen, asked = see(table, scores, _some(table, fold, size, draw))
        profile = OurRouter().fit(seen).router.profile
        gains = scores[fold.test] - scores[fold.test, :1]
        for share in expected:
            expecting = _expecting(profile, share)
            chosen = expecting.choose(list(asked.marks)).chosen + 1
            yield (
                share,
                Asked(
                    gains[np.arange(len(chosen)), chosen],
                    table.group[fold.test],
                    chosen == 0,
                    float(np.mean(expecting.choose(everyday).chosen >= 0)),
                ),
            )


def _some(table: OutcomeTable, fold: Fold, size: int, draw: np.random.Generator) -> Fold:
    groups = table.group[fold.fit]
    kept = np.unique(groups)
    if 0 < size < len(kept):
        kept = draw.choice(kept, size, replace=False)
    return replace(fold, fit=fold.fit[np.isin(groups, kept)])


def _expecting(profile: RoutingProfile, share: float) -> Router:
    """A router over the profile with another expected share of everyday requests."""
    weights = profile.everyday.copy()
    weights[-1] += (np.log(share / (1 - share)) if share else -100) - np.log(EXPECTED / (1 - EXPECTED))
    return Router(replace(profile, everyday=weights))


def measure(file: Path) -> None:
    """Print how often base and each adapter of a registry hold an accepted word in their answers, by sort."""
    requests = everyday_requests()
    sorts = list(dict.fromkeys(each.sort for each in requests))
    shown = Table("answered by", "all", *sorts)
    with Registry.open(file, read_only=True) as registry:
        adapters = {a.name: a for a in registry.adapters()}
        base = open_base_model(next(iter(adapters.values())).base_model)
        engine = open_engine("transformers", base.path, registry.weights, list(adapters.values()))
        for name in (None, *adapters):
            asked = [
                EngineRequest(({"role": "user", "content": r.text},), adapters[name] if name else None, MAX_TOKENS)
                for r in requests
            ]
            right = defaultdict(list)
            for request, result in zip(requests, engine.run(asked), strict=True):
                right[request.sort].append(any(word in result.text for word in request.accepted))
            shares = [np.mean(right[sort]) for sort in sorts]
            # There are as many of every sort.
            shown.add_row(name or "base", *(f"{share:.0%}" for share in (np.mean(shares), *shares)))
    Console(width=120).print(shown)


def main() -> None:
    """Print the table."""
    arguments = _arguments()
    if arguments.registry:
        measure(arguments.registry)
        return
    table = complete_table(arguments.outcomes)
    expected = [float(share) for share in arguments.expected.split(",")]
    shown = Table("profiled groups", "score", "expected", "gain", "2 points below", "to base", "everyday to adapters")
    for size in map(int, arguments.groups.split(",")):
        for score in ("strict", "lenient"):
            found = defaultdict(list)
            for share, asked in ask(table, score, size, expected):
                found[share].append(asked)
            for share, folds in found.items():
                shown.add_row(str(size or "all"), score, f"{share:.0%}", *_figures(folds))
    Console(width=120).print(shown)


def _figures(folds: list[Asked]) -> tuple[str, ...]:
    gains, groups = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("gains", "groups"))
    means = np.array([gains[groups == group].mean() for group in np.unique(groups)])
    to_base = np.concatenate([fold.to_base for fold in folds]).mean()
    misrouted = np.mean([fold.misrouted for fold in folds])
    return (
        f"{100 * means.mean():+.1f}",
        f"{(means < -0.02).sum()} of {len(means)}",
        f"{to_base:.0%}",
        f"{misrouted:.0%}",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="the outcome table")
    parser.add_argument("--groups", default="8,16,0", help="how many groups are profiled, comma-separated; 0: all")
    parser.add_argument("--expected", default=f"0,0.03,{EXPECTED},0.12", help="expected shares of everyday requests")
    parser.add_argument("--registry", type=Path, help="run its adapters, and base, on the everyday requests")
    return parser.parse_args()


if __name__ == "__main__":
    main()
