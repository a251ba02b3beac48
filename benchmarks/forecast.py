"""How well gains are predicted before training: every method, on sources left out one at a time.

    python benchmarks/forecast.py REGISTRY
    python benchmarks/forecast.py REGISTRY --score likelihood --seed 1

Prints, with and without the cells of a source on its own task, rank correlation and mean absolute error (points) of each
method with 95% bootstrap intervals over sources, and its paired difference from the mean row of the other sources; then
hidden statistics against semantic similarity, the coverage of the intervals, and the sentence on the paper's claim.
Signals are read once and kept beside the registry. Needs the extras `profile` and `linguistics`.
"""

import argparse
import time
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from traitroute.adapters import Registry
from traitroute.profiling import open_base_model
from traitroute.profiling.forecast.comparison import Comparison
from traitroute.profiling.forecast.forecast import Forecasts, forecast_study, read_signals
from traitroute.profiling.forecast.signals import SignalReader, signal_folder
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.statistics.significance import Interval
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.scoring import Score

console = Console(width=150)


def main() -> None:
    """Read the signals, forecast every source from the others, print the comparison."""
    arguments = _arguments()
    quiet_libraries()
    with Registry.open(arguments.registry, read_only=True) as store:
        study = Study.open(store)
    base = open_base_model(study.base_model)
    reader = SignalReader(base, signal_folder(arguments.registry), seed=arguments.seed)
    start = time.perf_counter()
    with Progress(console=console) as progress:
        bar = progress.add_task("read signals", total=len(study.adapters) + len(study.tasks))
        signals = read_signals(study, reader, on_dataset=lambda name: progress.advance(bar))
    read = time.perf_counter() - start
    found = forecast_study(study, signals, score=arguments.score, seed=arguments.seed)
    console.print(
        f"{len(found.sources)} sources, {len(found.tasks)} tasks, score: {arguments.score}; signals "
        f"{read:.1f} s, forecasts {time.perf_counter() - start - read:.1f} s",
        highlight=False,
    )
    for comparison in (found.overall, found.transfer):
        console.print(_table(comparison))
    _conclude(found)


def _table(found: Comparison) -> Table:
    table = Table(
        title=f"left-out sources, {found.cells} cells: rank correlation, and error in points (likelihood: hundredths of a nat)",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for column in ("rho", "less mean row", "p", "error", "less mean row", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for m in found.methods:
        table.add_row(
            m.name,
            escape(f"{m.rho:.2f} [{m.rho_low:.2f}, {m.rho_high:.2f}]"),
            *_difference(m.rho_gain, "+.2f"),
            escape(f"{m.mae:.1f} [{m.mae_low:.1f}, {m.mae_high:.1f}]"),
            *_difference(m.mae_gain, "+.1f"),
        )
    return table


def _difference(gain: Interval, form: str) -> tuple[str, str]:
    return (
        escape(f"{gain.mean:{form}} [{gain.low:{form}}, {gain.high:{form}}]"),
        f"{gain.p:.2g}",
    )


def _conclude(found: Forecasts) -> None:
    for comparison in (found.overall, found.transfer):
        rho, mae = (
            " p = ".join(_difference(gain, form))
            for gain, form in ((comparison.hidden_rho, "+.2f"), (comparison.hidden_mae, "+.1f"))
        )
        console.print(
            f"hidden statistics less semantic similarity, {comparison.cells} cells: rho {rho}; error {mae}",
            highlight=False,
        )
    console.print(
        f"intervals of {found.method!r} for {found.level:.0%} held {found.coverage:.0%} of the gains",
        highlight=False,
    )
    console.print(found.paper_claim, highlight=False, markup=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("registry", type=Path)
    parser.add_argument("--score", choices=get_args(Score), default="strict")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
