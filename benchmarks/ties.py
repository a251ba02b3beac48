"""What it is worth that ties go to what is loaded: loads saved, and the score it costs.

    python benchmarks/ties.py                        the measured adapters, and fleets drawn like them
    python benchmarks/ties.py --vllm                 vLLM on SmolLM2-135M with 50 random adapters and eight slots

Requests of `routing/smollm2.safetensors` arrive one after another, their data sets by Zipf's law. A server has fewer
slots than adapters, and an adapter that is not in one is loaded in the place of the one asked for longest ago. *The
measured adapters*: the profile is fitted on half of the items and asked about the other half, both ways round, and
scores are what was measured. *Drawn fleets* (`routing/fleet.py`): adapters of made-up traits with the covariance of the
measured, known from on 100 examples a task; scores are what their true gains give on average.

`--vllm` holds the drawn fleet's requests against the real engine, in this process, on the processor's own clock: what
else the machine does costs nothing. Prompts are random tokens; what is measured is when the first token comes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.fleet import Fleet
from routing.ours import OurRouter
from routing.protocols import Fold, item_parts
from routing.seen import see
from routing.table import SMOLLM2
from routing.trials import design_table
from traitroute.router import Router

Array = NDArray[np.float64]
WORTHS = (0.005, 0.01, 0.02)
"""Score points of predicted gain that may be given up for a load."""
BATCH = 256
ARRIVALS = 20_000
console = Console(width=150)


@dataclass(frozen=True)
class Stream:
    """n requests: predicted gains (n, a), their `errors` (n,), true `scores` (n, 1 + a), and their data sets (n,)."""

    name: str
    gains: Array
    errors: Array
    scores: Array
    dataset: NDArray[np.str_]

    @property
    def chosen(self) -> NDArray[np.intp]:
        """Whom the router chooses without ties, -1 for base, (n,)."""
        return np.where(self.gains.max(axis=1) > 0, self.gains.argmax(axis=1), -1)


@dataclass(frozen=True)
class Served:
    """What some arrivals cost: `loads` in all, and each arrival's `score` (m,)."""

    loads: int
    score: Array


def main() -> None:
    """Simulate, print, and measure where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--score", choices=("strict", "lenient"), default="strict")
    parser.add_argument("--fleets", type=int, nargs="*", default=[50, 200])
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    fleet = Fleet(seed=arguments.seed)
    if arguments.vllm:
        from serving.slots_on_vllm import measure

        console.print(measure(*drawn_router(fleet, 50), requests=arguments.requests, seed=arguments.seed))
        return
    table = Table(title=f"loads per 1,000 requests; points of score lost, with 95% over data sets; {arguments.score}")
    for column in ("adapters", "slots", "skew", "loads", *(f"giving up {100 * w:g}: loads, lost" for w in WORTHS)):
        table.add_column(column, justify="left" if column == "adapters" else "right")
    streams = [(measured_stream(arguments.score), (2, 4, 6))]
    streams += [(drawn_stream(fleet, size), (4, 8, 16)) for size in arguments.fleets]
    for stream, slots in streams:
        for count in slots:
            for skew in (0.0, 1.0):
                table.add_row(stream.name, str(count), f"{skew:g}", *_compared(stream, count, skew, arguments.seed))
    console.print(table)


def measured_stream(score: str) -> Stream:
    """Both halves of the table, each asked of a profile fitted on the other."""
    table = design_table(SMOLLM2)
    scores = getattr(table, score).astype(float)
    main_rows = table.kind == "main"
    part = item_parts(table.dataset, table.row, 2, np.random.default_rng(0))
    gains, errors, rows = [], [], []
    for half in (0, 1):
        test = main_rows & (part == half)
        fit = main_rows & ~test & ~np.isin(table.row, table.row[test])
        seen, asked = see(table, scores, Fold(np.flatnonzero(fit), np.flatnonzero(test)))
        predicted, error = _predicted(OurRouter().fit(seen).router, asked.marks.tolist())
        gains.append(predicted)
        errors.append(error)
        rows.append(np.flatnonzero(test))
    order = np.concatenate(rows)
    return Stream(
        f"{len(table.adapters)}, measured",
        np.concatenate(gains),
        np.concatenate(errors),
        scores[order],
        table.dataset[order],
    )


def drawn_router(fleet: Fleet, size: int) -> tuple[Router, list, Array, NDArray[np.str_]]:
    """The router of a drawn fleet by its measured gains, the requests' marks, true scores and data sets."""
    drawn = fleet.draw(size)
    truth = fleet.base + fleet.traits.inverse_transform(drawn.scores)
    # What the router knows of an adapter is what measuring it on 100 examples found.
    known = replace(drawn, scores=fleet.traits.transform(drawn.gains))
    router = Router(fleet.routing_profile(known))
    place = {int(task): i for i, task in enumerate(fleet.places)}
    rows = fleet.rows[fleet.table.kind[fleet.rows] == "main"]
    columns = np.array([place[int(task)] for task in fleet.table.task[rows]])
    scores = np.hstack([fleet.base[columns, None], np.clip(truth[:, columns].T, 0, 1)])
    return router, fleet.table.marks[rows].tolist(), scores, fleet.table.dataset[rows]


def drawn_stream(fleet: Fleet, size: int) -> Stream:
    """The requests of the measured ones' table, asked of a drawn fleet."""
    router, marks, scores, dataset = drawn_router(fleet, size)
    return Stream(f"{size}, drawn", *_predicted(router, marks), scores, dataset)


def _predicted(router: Router, marks: Sequence) -> tuple[Array, Array]:
    """Gains (n, a), less the margin where that would keep them from being chosen, and errors (n,)."""
    chosen = [router.choose(marks[i : i + BATCH]) for i in range(0, len(marks), BATCH)]
    gains, errors = (np.concatenate([getattr(c, part) for c in chosen]) for part in ("gains", "errors"))
    return np.where(gains > router.profile.z * errors[:, None], gains, np.minimum(gains, 0)), errors


def arrivals(dataset: NDArray[np.str_], count: int, skew: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of the requests that arrive; the k-th commonest data set's share goes by 1 / k ** skew."""
    names = rng.permutation(np.unique(dataset))
    weights = 1 / np.arange(1, len(names) + 1) ** skew
    members = {name: np.flatnonzero(dataset == name) for name in names}
    return np.array([rng.choice(members[n]) for n in rng.choice(names, count, p=weights / weights.sum())])


def served(stream: Stream, rows: NDArray[np.intp], slots: int, worth: float) -> Served:
    """Answer the requests by the rule of `Router.route` with `held`, and count what is loaded."""
    held: dict[int, None] = {}
    loads, answered, chosen = 0, [], stream.chosen
    for row in rows.tolist():
        adapter = int(chosen[row])
        if adapter >= 0:
            gains = stream.gains[row]
            if held and adapter not in held:
                other = max(held, key=lambda a: gains[a])
                if gains[other] > 0 and gains[other] >= gains[adapter] - min(worth, stream.errors[row]):
                    adapter = other if worth else adapter
            loads += adapter not in held
            held.pop(adapter, None)
            held[adapter] = None
            if len(held) > slots:
                del held[next(iter(held))]
        answered.append(adapter)
    return Served(loads, stream.scores[rows, 1 + np.array(answered)])


def _compared(stream: Stream, slots: int, skew: float, seed: int) -> list[str]:
    rows = arrivals(stream.dataset, ARRIVALS, skew, np.random.default_rng(seed))
    without = served(stream, rows, slots, 0.0)
    shown = [f"{1000 * without.loads / len(rows):.0f}"]
    for worth in WORTHS:
        tied = served(stream, rows, slots, worth)
        lost, reach = _mean(100 * (without.score - tied.score), rows, stream.dataset[rows])
        shown.append(
            f"{1000 * tied.loads / len(rows):.0f} ({tied.loads / without.loads:.0%}), {lost:.2f} ± {reach:.2f}"
        )
    return shown


def _mean(values: Array, rows: NDArray[np.intp], dataset: NDArray[np.str_]) -> tuple[float, float]:
    """The mean and the reach of its 95% interval; what is said of a data set counts as one draw."""
    mean = float(values.mean())
    sums = np.array([(values[dataset == name] - mean).sum() for name in np.unique(dataset)])
    return mean, float(1.96 * np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))


if __name__ == "__main__":
    main()
