"""Do everyday requests, like which nothing was profiled, go to base? And what does it cost on new kinds of task?

    python benchmarks/everyday.py                          from the committed outcomes; no model is run
    python benchmarks/everyday.py --groups 8,16 --expected 0,0.06
    python benchmarks/everyday.py --registry runs/demo/registry.db     what its adapters score on everyday requests
    python benchmarks/everyday.py --work runs/measure                  the same of the table's adapters
    python benchmarks/everyday.py --work runs/measure --losses FILE    their losses as a profile measures them, added
    python benchmarks/everyday.py --write router/other_tasks.safetensors     the tasks that the router tells them from

Groups of the table are left out by turns, of those to design on, and some of the others are profiled (0: all). Shown
are the mean gain over base on the groups left out, each alike, in points; how many of them lose more than two points;
the share of their requests that goes to base; and the share of the thirty everyday requests in `routing/off_topic.txt`,
none of which the router knows, that goes to an adapter, and the points that this loses. Each for several expected
shares of everyday requests (`traitroute.router.everyday.expected_share`), 0 being the router without them.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from routing.ours import OurRouter, read_everyday_losses
from routing.protocols import Fold
from routing.seen import see
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import complete_table, design_table, fold_list, scores_of
from traitroute.adapters import Adapter, Cell, Registry, WeightStore
from traitroute.profiling import Task, open_base_model
from traitroute.profiling.matrix.everyday import everyday_losses
from traitroute.profiling.matrix.measure import measure_cell
from traitroute.router import Router, RoutingProfile
from traitroute.router.everyday import (
    OtherTasks,
    checksum,
    everyday_requests,
    expected_share,
)
from traitroute.serving import EngineRequest, open_engine

OFF_TOPIC = Path(__file__).parent / "routing" / "off_topic.txt"
MAX_TOKENS = 40
OF_GROUP = 5
"""How many requests of each group ship with the router."""


@dataclass(frozen=True)
class Asked:
    """What came of the requests of one fold: their `gains` and `groups` (n,), which went `to_base` (n,), and the share
    of everyday requests that went to an adapter, with the mean score that this lost."""

    gains: NDArray[np.float64]
    groups: NDArray[np.str_]
    to_base: NDArray[np.bool_]
    misrouted: float
    lost: float


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
            chatted = expecting.choose(everyday).chosen
            yield (
                share,
                Asked(
                    gains[np.arange(len(chosen)), chosen],
                    table.group[fold.test],
                    chosen == 0,
                    float(np.mean(chatted >= 0)),
                    float(np.mean(np.where(chatted < 0, 0, profile.everyday_losses[chatted]))),
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
    own = expected_share(profile.groups)
    weights[-1] += (np.log(share / (1 - share)) if share else -100) - np.log(own / (1 - own))
    return Router(replace(profile, everyday=weights))


def measure_registry(file: Path) -> None:
    """Measure the adapters of a registry."""
    with Registry.open(file, read_only=True) as registry:
        adapters = registry.adapters()
        measure(adapters[0].base_model, registry.weights, adapters)


def measure_work(work: Path, base_model: str, table: Path, losses: Path | None) -> None:
    """Measure the adapters that outcomes.py trained in a work folder; where to write is given, as a profile does."""
    with TemporaryDirectory() as folder:
        store = WeightStore(Path(folder))
        files = {
            run.name: store.add(run) for run in sorted((work / "runs").iterdir()) if list(run.glob("*.safetensors"))
        }
        adapters = [each.adapter(name, base_model, "0" * 64) for name, each in files.items()]
        if losses is None:
            measure(base_model, store, adapters)
        else:
            write_losses(losses, OutcomeTable.load(table), base_model, store, adapters)


def write_losses(
    file: Path, table: OutcomeTable, base_model: str, store: WeightStore, adapters: Sequence[Adapter]
) -> None:
    """Add to `file` what each adapter of the table loses, by the key of its training."""
    engine = open_engine("transformers", open_base_model(base_model).path, store, list(adapters))

    def cell(adapter: Adapter | None, task: Task) -> Cell:
        return Cell("", adapter and adapter.name, task.name, measure_cell(engine, adapter, task))

    lost = everyday_losses([each for each in adapters if each.name in table.adapters], cell)
    known = read_everyday_losses(file) if file.is_file() else {}
    known = known | {table.trained[table.adapters.index(name)]: (name, loss) for name, loss in lost.items()}
    file.write_text("".join(f"{key}\t{name}\t{loss:.4f}\n" for key, (name, loss) in known.items()))


def measure(base_model: str, weights: WeightStore, adapters: Sequence[Adapter]) -> None:
    """Print how often base and each adapter hold an accepted word in their answers, by sort."""
    requests = everyday_requests()
    sorts = list(dict.fromkeys(each.sort for each in requests))
    shown = Table("answered by", "all", *sorts)
    engine = open_engine("transformers", open_base_model(base_model).path, weights, list(adapters))
    for adapter in track((None, *adapters), "answering"):
        asked = [EngineRequest(({"role": "user", "content": r.text},), adapter, MAX_TOKENS) for r in requests]
        right = defaultdict(list)
        for request, result in zip(requests, engine.run(asked), strict=True):
            right[request.sort].append(any(word in result.text for word in request.accepted))
        shares = [np.mean(right[sort]) for sort in sorts]
        # There are as many of every sort.
        shown.add_row(adapter.name if adapter else "base", *(f"{share:.0%}" for share in (np.mean(shares), *shares)))
    Console(width=120).print(shown)


def draw_tasks(table: OutcomeTable) -> OtherTasks:
    """Some requests of each group, each data set as it stands."""
    draw = np.random.default_rng(0)
    rows = np.flatnonzero(table.kind == "main")
    groups = table.group[rows]
    drawn = np.concatenate([draw.permutation(rows[groups == group])[:OF_GROUP] for group in np.unique(groups)])
    return OtherTasks(
        tuple(table.marks[drawn].tolist()), np.array([checksum(group) for group in table.group[drawn]], np.uint32)
    )


def main() -> None:
    """Print the table."""
    arguments = _arguments()
    if arguments.write:
        arguments.write.write_bytes(draw_tasks(design_table(arguments.outcomes)).to_bytes())
        return
    if arguments.registry:
        measure_registry(arguments.registry)
        return
    if arguments.work:
        measure_work(arguments.work, arguments.base, arguments.outcomes, arguments.losses)
        return
    table = complete_table(arguments.outcomes)
    expected = [float(share) for share in arguments.expected.split(",")]
    shown = Table(
        "profiled groups", "score", "expected", "gain", "2 points below", "to base", "everyday to adapters", "lost"
    )
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
    misrouted, lost = (np.mean([getattr(fold, name) for fold in folds]) for name in ("misrouted", "lost"))
    return (
        f"{100 * means.mean():+.1f}",
        f"{(means < -0.02).sum()} of {len(means)}",
        f"{to_base:.0%}",
        f"{misrouted:.0%}",
        f"{100 * lost:.1f}",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="the outcome table")
    parser.add_argument("--groups", default="8,16,0", help="how many groups are profiled, comma-separated; 0: all")
    parser.add_argument("--expected", default="0,0.03,0.06,0.12", help="expected shares of everyday requests")
    parser.add_argument("--write", type=Path, help="write there the tasks that ship with the router, and end")
    parser.add_argument("--registry", type=Path, help="run its adapters, and base, on the everyday requests")
    parser.add_argument("--work", type=Path, help="the same of the adapters that `outcomes.py --work` trained there")
    parser.add_argument("--losses", type=Path, help="with --work: add what those of the table lose to this file")
    parser.add_argument("--base", default="smollm2-135m-instruct", help="the base model of --work's adapters")
    return parser.parse_args()


if __name__ == "__main__":
    main()
