"""`traitroute report`: every analysis of a profile as one page, with its figures and tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from ..adapters import Location, Registry
from .options import DEFAULT_REGISTRY, RegistryPath, console
from .profile import progress_bars

if TYPE_CHECKING:
    from ..profiling.forecast.forecast import Forecasts
    from ..profiling.study import Study

_UNASKED = "it takes minutes with the base model; run `traitroute report --forecast`"


def report(
    registry: RegistryPath = DEFAULT_REGISTRY,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: `<registry stem>-report`.")] = None,
    version: Annotated[int | None, typer.Option(help="Profile version; default: the latest.")] = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast",
            help="Also forecast each source from the others: reads every dataset with the base model.",
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

    check_forecastable(study.adapters, ALL)
    quiet_libraries()
    reader = SignalReader(open_base_model(study.base_model), signal_folder(registry))
    bar = progress.add_task("read signals", total=len(study.adapters) + len(study.tasks))
    signals = read_signals(study, reader, on_dataset=lambda name: progress.advance(bar))
    return forecast_study(study, signals)
