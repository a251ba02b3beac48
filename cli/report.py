"""`traitroute report` and `predict`: every analysis of a profile as one page, and gains forecast before training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ..adapters import Location, Registry
from .console import console, progress_bars
from .options import DEFAULT_REGISTRY, RegistryPath

if TYPE_CHECKING:
    from ..profiling.forecast.forecast import Forecasts, Prediction
    from ..profiling.study import Study

_UNASKED = "it takes minutes with the base model; run `traitroute report --forecast`"


def report(
    registry: RegistryPath = DEFAULT_REGISTRY,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: `<registry stem>-report`.")] = None,
    version: Annotated[int | None, typer.Option(help="Profile version; default: the latest.")] = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast", help="Also forecast each source from the others: reads every dataset with the base model."
        ),
    ] = False,
) -> None:
    """Write every analysis of a profile as one self-contained page, its figures and tables beside it.

    An analysis whose data or model is not at hand is left out, and the page says why.

    Example:

        traitroute report --registry traitroute.db --out report
    """
    from ..profiling.report import Corpus, Missing, attempt, check_folder, write_report
    from ..profiling.study import Study

    folder = out or registry.beside("-report")
    check_folder(folder)
    with Registry.open(registry, read_only=True) as store:
        study = Study.open(store, version)
        digests = store.task_digests()
        profiled_on = store.profile(study.version).created_at.date()
    with progress_bars() as progress:
        forecasts = attempt(lambda: _forecasts(study, registry, progress)) if forecast else Missing(_UNASKED)
        result = write_report(
            study,
            folder,
            corpus=Corpus(study, digests=digests),
            profiled_on=profiled_on,
            forecasts=forecasts,
            progress=progress,
        )
    for each in result.left_out:
        console.print(f"left out: {each.what}: {each.reason}", markup=False, highlight=False)
    console.print(f"report: {result.page}", markup=False, highlight=False, soft_wrap=True)


def _forecasts(study: "Study", registry: Location, progress: Progress) -> "Forecasts":
    """Every source forecast from the others; signals that an earlier run read are taken from beside the registry."""
    from ..profiling import open_base_model
    from ..profiling.forecast.forecast import ALL, check_forecastable, forecast_study, read_signals
    from ..profiling.forecast.signals import SignalReader, signal_folder
    from ..profiling.profile import quiet_libraries

    check_forecastable(study.sources, ALL)
    quiet_libraries()
    reader = SignalReader(open_base_model(study.base_model), signal_folder(registry))
    bar = progress.add_task("read signals", total=len(study.sources) + len(study.tasks))
    signals = read_signals(study, reader, on_dataset=lambda name: progress.advance(bar))
    return forecast_study(study, signals)


def predict(
    data: Annotated[Path, typer.Argument(help="A folder with train.jsonl; with --name, a folder of such.")],
    registry: RegistryPath = DEFAULT_REGISTRY,
    name: Annotated[str | None, typer.Option(help="The task's folder inside DATA.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Jinja2 template over a row's columns; default: the input, and its labels.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="all, mean row, semantic similarity, perplexity, hidden statistics, …")
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
    check_forecastable([source for source in study.sources if source != task.name], method)
    quiet_libraries()
    reader = SignalReader(open_base_model(study.base_model), signal_folder(registry), seed=seed)
    with progress_bars() as progress:
        bar = progress.add_task("read signals", total=1 + len(study.sources) + len(study.tasks))
        forecast = run_prediction(
            study, task, reader, method=method, seed=seed, on_dataset=lambda name: progress.advance(bar)
        )
    _show_prediction(forecast)


def _show_prediction(forecast: "Prediction") -> None:
    console.print(_prediction_table(forecast))
    console.print(
        f"method: {forecast.method}, fitted to {len(forecast.sources)} sources ({forecast.cells} cells)",
        highlight=False,
    )
    console.print(_trust(forecast), highlight=False, soft_wrap=True)


def _prediction_table(forecast: "Prediction") -> Table:
    table = Table(
        title=f"forecast gains of an adapter trained on {escape(forecast.name)}, in points", title_justify="left"
    )
    table.add_column("task", overflow="fold")
    for column in ("base %", "forecast", f"{forecast.level:.0%} interval", "mean of sources"):
        table.add_column(column, justify="right", no_wrap=True)
    row = forecast.row
    figures = zip(forecast.tasks, forecast.base, row.gains, row.low, row.high, forecast.mean_row, strict=True)
    for task, base, gain, low, high, mean in figures:
        table.add_row(
            escape(f"{task} (own)" if task == forecast.name else task),
            f"{100 * base:.0f}",
            f"{100 * gain:+.1f}",
            escape(f"[{100 * low:+.1f}, {100 * high:+.1f}]"),
            f"{100 * mean:+.1f}",
        )
    return table


def _trust(forecast: "Prediction") -> str:
    """How the method fared on sources whose gains are known, each left out in turn."""
    own, base = forecast.trusted, forecast.baseline
    lines = [
        f"how far to trust it: on the {len(forecast.sources)} sources here, each left out in turn, the error "
        f"is {_bounds(own.mae, own.mae_low, own.mae_high, '.1f')} points, the rank correlation "
        f"{_bounds(own.rho, own.rho_low, own.rho_high, '.2f')}; the intervals held "
        f"{forecast.coverage:.0%} of their gains"
    ]
    if forecast.method != base.name:
        verdict = (
            "the method is better than the mean row"
            if forecast.beats_mean_row
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
