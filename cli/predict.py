"""`traitroute predict`: what an adapter would gain, before it is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import Registry
from .options import DEFAULT_REGISTRY, RegistryPath, console
from .profile import progress_bars

if TYPE_CHECKING:
    from ..profiling.forecast.forecast import Prediction


def predict(
    data: Annotated[Path, typer.Argument(help="A folder with train.jsonl; with --name, a folder of such.")],
    registry: RegistryPath = DEFAULT_REGISTRY,
    name: Annotated[str | None, typer.Option(help="The task's folder inside DATA.")] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Jinja2 template over a row's columns; default: the input, and its labels."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="all, mean row, semantic similarity, perplexity, hidden statistics, …"),
    ] = "all",
    seed: Annotated[int, typer.Option(help="Of gradient signatures and intervals.")] = 0,
) -> None:
    """Forecast the gains of a LoRA trained on DATA over every profiled task, with intervals.

    Signals of the datasets are kept beside the registry, so only the first forecast reads them.

    Examples:

        traitroute predict my_tasks/reviews --registry traitroute.db

        traitroute predict my_tasks --name reviews --prompt "Review: {{ input }}"
    """
    from ..profiling import open_base_model
    from ..profiling.forecast.forecast import check_forecastable, source_task
    from ..profiling.forecast.forecast import predict as run_prediction
    from ..profiling.forecast.signals import SignalReader, signal_folder
    from ..profiling.profile import quiet_libraries
    from ..profiling.study import Study

    with Registry.open(registry, read_only=True) as store:
        study = Study.open(store)
    task = source_task(data, name=name, prompt=prompt)
    check_forecastable([source for source in study.adapters if source != task.name], method)
    quiet_libraries()
    reader = SignalReader(open_base_model(study.base_model), signal_folder(registry), seed=seed)
    with progress_bars() as progress:
        bar = progress.add_task("read signals", total=1 + len(study.adapters) + len(study.tasks))
        found = run_prediction(
            study,
            task,
            reader,
            method=method,
            seed=seed,
            on_dataset=lambda name: progress.advance(bar),
        )
    _show(found)


def _show(found: "Prediction") -> None:
    console.print(_table(found))
    console.print(
        f"method: {found.method}, fitted to {len(found.sources)} sources ({found.cells} cells)",
        highlight=False,
    )
    console.print(_trust(found), highlight=False, soft_wrap=True)


def _table(found: "Prediction") -> Table:
    table = Table(
        title=f"forecast gains of an adapter trained on {escape(found.name)}, in points",
        title_justify="left",
    )
    table.add_column("task", overflow="fold")
    for column in ("base %", "forecast", f"{found.level:.0%} interval", "mean of sources"):
        table.add_column(column, justify="right", no_wrap=True)
    row = found.row
    figures = zip(found.tasks, found.base, row.gains, row.low, row.high, found.mean_row, strict=True)
    for task, base, gain, low, high, mean in figures:
        table.add_row(
            escape(f"{task} (own)" if task == found.name else task),
            f"{100 * base:.0f}",
            f"{100 * gain:+.1f}",
            escape(f"[{100 * low:+.1f}, {100 * high:+.1f}]"),
            f"{100 * mean:+.1f}",
        )
    return table


def _trust(found: "Prediction") -> str:
    """How the method fared on sources whose gains are known, each left out in turn."""
    own, base = found.trusted, found.baseline
    lines = [
        f"how far to trust it: on the {len(found.sources)} sources here, each left out in turn, the error "
        f"is {_bounds(own.mae, own.mae_low, own.mae_high, '.1f')} points, the rank correlation "
        f"{_bounds(own.rho, own.rho_low, own.rho_high, '.2f')}; the intervals held "
        f"{found.coverage:.0%} of their gains",
    ]
    if found.method != base.name:
        verdict = (
            "the method is better than the mean row"
            if found.beats_mean_row
            else "the mean row is as good, as far as these sources can show"
        )
        gain = own.mae_gain
        lines.append(
            f"{verdict}: its error is {base.mae:.1f} points (difference "
            f"{_bounds(gain.mean, gain.low, gain.high, '+.1f')}, p = {gain.p:.2g}), its rank correlation "
            f"{base.rho:.2f}"
        )
    return escape("\n".join(lines))


def _bounds(value: float, low: float, high: float, form: str) -> str:
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
