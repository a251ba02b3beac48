"""`traitroute report`: every analysis of a profile as one page, with its figures and tables."""

from pathlib import Path
from typing import Annotated

import typer

from ..adapters import Registry
from .options import DEFAULT_REGISTRY, RegistryPath, console
from .profile import progress_bars


def report(
    registry: RegistryPath = DEFAULT_REGISTRY,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: `<registry stem>-report`.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="Profile version; default: the latest.")
    ] = None,
) -> None:
    """Write every analysis of a profile as one self-contained page, its figures and tables beside it.

    An analysis whose data or model is not at hand is left out, and the page says why.

    Example:

        traitroute report --registry traitroute.db --out report
    """
    from ..profiling.findings import Corpus
    from ..profiling.report import write_report
    from ..profiling.study import Study

    with Registry.open(registry, read_only=True) as store:
        study = Study.open(store, version)
        digests = store.task_digests()
        profiled_on = store.profile(study.version).created_at.date()
    folder = out or registry.with_name(f"{registry.stem}-report")
    with progress_bars() as progress:
        result = write_report(
            study,
            folder,
            corpus=Corpus(study, digests=digests),
            profiled_on=profiled_on,
            progress=progress,
        )
    for each in result.left_out:
        console.print(f"left out: {each.what}: {each.reason}", markup=False, highlight=False)
    console.print(f"report: {result.page}", markup=False, highlight=False, soft_wrap=True)
