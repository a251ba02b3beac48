"""How well gains are predicted before training: every method, on sources left out one at a time.

    python benchmarks/forecast.py REGISTRY
    python benchmarks/forecast.py REGISTRY --score likelihood --seed 1

Prints, with and without the cells of a source on its own task, rank correlation and mean absolute error (points) of
each method with 95% bootstrap intervals over sources, and its paired difference from the mean row of the other
sources; then hidden statistics against semantic similarity, the coverage of the intervals, and the paper's claim.
Signals are read once and kept beside the registry. Needs the extras `profile` and `linguistics`.
"""

import argparse
import time
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from traitroute.adapters import Registry
from traitroute.profiling import open_base_model
from traitroute.profiling.forecast.forecast import Forecasts, forecast_study, read_signals
from traitroute.profiling.forecast.forecaster import (
    HIDDEN_STATISTICS,
    MEAN_ROW,
    SEMANTIC,
    Comparison,
    mean_over_sources,
)
from traitroute.profiling.forecast.signals import SignalReader, signal_folder
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.statistics.significance import Interval
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.scoring import Score

Verdict = Literal["shown", "not shown", "the opposite is shown"]
ALPHA = 0.05
SOURCES_TO_SHOW_ANYTHING = 6
"""With fewer, no sign-flip p can fall below 0.05."""
CLAIM: dict[Verdict, str] = {
    "shown": "this is shown",
    "not shown": "this is not shown",
    "the opposite is shown": "the opposite is shown",
}
AGAINST_MEAN_ROW: dict[Verdict, str] = {
    "shown": "beat",
    "not shown": "are not shown to beat",
    "the opposite is shown": "do worse than",
}
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
        bar = progress.add_task("read signals", total=len(study.sources) + len(study.tasks))
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
    _conclude(found, arguments.seed)


def _table(found: Comparison) -> Table:
    table = Table(
        title=f"left-out sources, {found.cells} cells: rank correlation, and error in points "
        "(likelihood: hundredths of a nat)",
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


def hidden_against_semantic(found: Comparison, seed: int = 0) -> tuple[Interval, Interval]:
    """Rank correlation and error of hidden statistics, less those of semantic similarity, paired by source."""
    hidden, semantic = (found.method(name) for name in (HIDDEN_STATISTICS, SEMANTIC))
    return (
        mean_over_sources(hidden.rhos - semantic.rhos, seed),
        mean_over_sources(hidden.maes - semantic.maes, seed),
    )


def verdict(gain: Interval) -> Verdict:
    """Of a paired gain in rank correlation: both its interval and its test must say so."""
    if gain.p > ALPHA or gain.low <= 0 <= gain.high:
        return "not shown"
    return "shown" if gain.mean > 0 else "the opposite is shown"


def paper_claim(transfer: Comparison, seed: int = 0) -> str:
    """Whether hidden statistics explain transfer better than the data's surface, as arXiv 2509.13624 claims.

    One test named in advance: rank correlation over the cells of other tasks than the source's own.
    """
    hidden, semantic, mean = (transfer.method(name) for name in (HIDDEN_STATISTICS, SEMANTIC, MEAN_ROW))
    rho, error = hidden_against_semantic(transfer, seed)
    n = int(np.isfinite(hidden.rhos).sum())
    few = f"; {n} sources are too few to show anything" if n < SOURCES_TO_SHOW_ANYTHING else ""
    return (
        "Claim: hidden statistics forecast cross-task gains better than semantic similarity. "
        f"In these data {CLAIM[verdict(rho)]}: rank correlation {hidden.rho:.2f} against {semantic.rho:.2f} over {n} "
        f"left-out sources, difference {rho.mean:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}], p = {rho.p:.2g}{few}; hidden "
        f"statistics {AGAINST_MEAN_ROW[verdict(hidden.rho_gain)]} the mean row of the other sources ({mean.rho:.2f}). "
        f"Beside it, not part of the test: their mean error is {hidden.mae:.1f} points against {semantic.mae:.1f}, "
        f"difference {error.mean:+.1f} [{error.low:+.1f}, {error.high:+.1f}], p = {error.p:.2g}; the mean row's is "
        f"{mean.mae:.1f}."
    )


def _conclude(found: Forecasts, seed: int) -> None:
    for comparison in (found.overall, found.transfer):
        gains = zip(hidden_against_semantic(comparison, seed), ("+.2f", "+.1f"), strict=True)
        rho, mae = (" p = ".join(_difference(gain, form)) for gain, form in gains)
        console.print(
            f"hidden statistics less semantic similarity, {comparison.cells} cells: rho {rho}; error {mae}",
            highlight=False,
        )
    console.print(
        f"intervals of {found.method!r} for {found.level:.0%} held {found.coverage:.0%} of the gains",
        highlight=False,
    )
    console.print(paper_claim(found.transfer, seed), highlight=False, markup=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("registry", type=Path)
    parser.add_argument("--score", choices=get_args(Score), default="strict")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
