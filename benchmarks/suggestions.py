"""Does `traitroute suggest-tasks` name the task that the traffic lacks? From the committed outcomes; no model is run.

    python benchmarks/suggestions.py                the table
    python benchmarks/suggestions.py --json out.json

Six data sets at a time are left out of the profile, with all of their groups: one whose requests come in among those of
five profiled ones, and five decoys. All six are candidates, known by the half of their prompts that do not come in.
Each of the data sets has its turn.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from routing.ours import OurRouter
from routing.protocols import Fold
from routing.seen import see
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import design_table, scores_of
from traitroute.router import Router
from traitroute.router.decision import NOVEL
from traitroute.serving.traffic.suggestion import suggestions

DECOYS = FAMILIAR = 5


@dataclass(frozen=True)
class Turn:
    """One data set's turn: the shares of its requests and of familiar ones that count as novel, and what is suggested
    first.
    """

    lacking: str
    novel_of_lacking: float
    novel_of_familiar: float
    suggested: str | None
    covers: float

    @property
    def right(self) -> bool:
        """Whether the data set that is lacking is suggested first."""
        return self.suggested == self.lacking


def turn(table: OutcomeTable, rows_of: Mapping[str, NDArray[np.intp]], lacking: str) -> Turn:
    """Fit without `lacking` and the decoys, and see what is suggested for a stream that it comes in."""
    draw = np.random.default_rng(sorted(rows_of).index(lacking))
    groups = dict(zip(table.datasets, table.groups, strict=True))
    drawn = draw.permutation([name for name in rows_of if groups[name] != groups[lacking]]).tolist()
    decoys = drawn[:DECOYS]
    gone = {groups[name] for name in (lacking, *decoys)}
    familiar = [name for name in drawn[DECOYS:] if groups[name] not in gone][:FAMILIAR]
    mine = rows_of[lacking][1::2]
    theirs = np.concatenate([rows_of[name][1::2] for name in familiar])
    router = fitted(table, out=gone, streamed=theirs)
    features = router.profile.features
    came = np.concatenate([mine, theirs])
    novel = router.choose(table.marks[came].tolist()).novelty >= NOVEL
    candidates = {name: features.transform(table.marks[rows_of[name][::2]].tolist()) for name in (lacking, *decoys)}
    asked = table.marks[came[novel]].tolist()
    found = suggestions(features.transform(asked), candidates, router.profile) if asked else []
    return Turn(
        lacking,
        float(novel[: len(mine)].mean()),
        float(novel[len(mine) :].mean()),
        found[0].task if found else None,
        found[0].share if found else 0.0,
    )


def fitted(table: OutcomeTable, *, out: set[str], streamed: NDArray[np.intp]) -> Router:
    """A router fitted without the groups `out`, and without the `streamed` rows of those that it knows."""
    kept = ~np.isin(table.group, list(out))
    # What else is asked of the rows that come in would make them familiar.
    kept &= (table.kind == "main") | ~np.isin(table.dataset, table.dataset[streamed])
    kept[streamed] = False
    fold = Fold(np.flatnonzero(kept), streamed)
    seen, _ = see(table, scores_of(table, "strict"), fold)
    return OurRouter().fit(seen).router


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="an outcome table")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--cases", type=int, help="only so many data sets, to see that it runs")
    args = parser.parse_args()
    table = design_table(args.outcomes)
    main_rows = np.flatnonzero(table.kind == "main")
    rows_of = {
        str(name): main_rows[table.dataset[main_rows] == name]
        for name in dict.fromkeys(table.dataset[main_rows].tolist())
    }
    turns = [turn(table, rows_of, name) for name in track(list(rows_of)[: args.cases], "data sets")]
    _show(turns, Console())
    if args.json:
        args.json.write_text(json.dumps([asdict(t) | {"right": t.right} for t in turns], indent=1))


def _show(turns: list[Turn], console: Console) -> None:
    table = Table(title="what is suggested for requests of a data set left out", title_justify="left")
    for column in ("lacking", "its requests novel", "familiar ones novel", "suggested", "covers"):
        table.add_column(column)
    for t in turns:
        table.add_row(
            t.lacking,
            f"{t.novel_of_lacking:.0%}",
            f"{t.novel_of_familiar:.0%}",
            t.suggested or "nothing",
            f"{t.covers:.0%}",
        )
    console.print(table)
    right = sum(t.right for t in turns)
    console.print(
        f"the data set that is lacking comes first {right} times of {len(turns)} "
        f"(chance: {len(turns) / (DECOYS + 1):.0f}); "
        f"novel: {np.mean([t.novel_of_lacking for t in turns]):.0%} of its requests, "
        f"{np.mean([t.novel_of_familiar for t in turns]):.0%} of familiar ones"
    )


if __name__ == "__main__":
    main()
