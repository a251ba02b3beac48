"""Write the report of a study: find, draw, say, save; the page last, since it is what a reader opens."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.progress import Progress

from ...adapters import InputError
from ..findings import Corpus, Missing
from ..study import Study
from .families import FAMILIES, Family
from .figures.forecast import Forecasts
from .figures.style import figure_style
from .files import write_whole
from .images import Image, render
from .page import Head, render_page
from .section import LeftOut, Section
from .sections import forecast_section
from .tables import Table
from .wording import span

PAGE = "index.html"
MANIFEST = "report.json"


@dataclass(frozen=True)
class Report:
    """Where the page is, all files written, and what had to be left out."""

    page: Path
    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def write_report(
    study: Study,
    out: Path,
    *,
    corpus: Corpus | None = None,
    profiled_on: date | None = None,
    forecasts: Forecasts | Missing | None = None,
    families: Sequence[Family] = FAMILIES,
    progress: Progress | None = None,
) -> Report:
    """Write the report of `study` into the folder `out`, in place of an earlier one there.

    `corpus` holds its texts and their readers; `forecasts`, where given, get a section of their own.
    `families` are the analyses to make.

    Raises:
        InputError: `out` is a file.
        ImportError: the `report` extra is missing.
    """
    check_folder(out)
    progress = progress or Progress(disable=True)
    with figure_style():
        sections = list(_sections(study, corpus or Corpus(study), families, progress))
        sections += _forecast_sections(forecasts)
        images = {p.name: render(p.figure) for s in sections for p in s.pictures}
    page = render_page(_head(study, profiled_on), sections, images)
    tables = [table for section in sections for table in section.tables]
    left_out = tuple(each for section in sections for each in section.left_out)
    return Report(out / PAGE, _save(study, out, page, images, tables, left_out), left_out)


def check_folder(out: Path) -> None:
    """Refuse an `out` that is no folder, before anything long is computed.

    Raises:
        InputError: `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder for the report, or a new name")


def _sections(study: Study, corpus: Corpus, families: Sequence[Family], progress: Progress) -> Iterator[Section]:
    bar = progress.add_task("report", total=len(families))
    for family in families:
        progress.update(bar, description=f"report: {family.title.lower()}")
        yield family.section(study, corpus)
        progress.advance(bar)


def _forecast_sections(forecasts: Forecasts | Missing | None) -> list[Section]:
    if forecasts is None:
        return []
    if isinstance(forecasts, Missing):
        title = "Prediction before training"
        return [Section("forecast", title, left_out=(LeftOut(title, forecasts.reason),))]
    return [forecast_section(forecasts)]


def _head(study: Study, profiled_on: date | None) -> Head:
    sizes = [len(study.outcomes[None, task]) for task in study.tasks]
    facts = {
        "Suite": study.suite,
        "Base model": study.base_model or "not recorded",
        "Method": study.summary.get("method", "lora"),
        "Profile": f"version {study.version}" + (f", of {profiled_on.isoformat()}" if profiled_on else ""),
        "Adapters": f"{len(study.adapters)}, and {len(study.ablations)} ablations",
        "Tasks": f"{len(study.tasks)}, with {span(sizes)} test examples each, {sum(sizes)} in all",
    }
    return Head(study.suite, facts, study.summary.get("warnings", ()))


def _save(
    study: Study,
    out: Path,
    page: str,
    images: dict[str, Image],
    tables: Sequence[Table],
    left_out: Sequence[LeftOut],
) -> tuple[Path, ...]:
    """Write all files, then the page, then take away what only an earlier report had."""
    files = {
        f"figures/{name}.{kind}": getattr(image, kind) for name, image in images.items() for kind in ("png", "svg")
    }
    files |= {f"tables/{t.name}.csv": t.to_csv() for t in tables}
    files |= {f"tables/{t.name}.parquet": t.to_parquet() for t in tables}
    earlier = _listed(out)
    manifest = {
        "suite": study.suite,
        "profile_version": study.version,
        "warnings": list(study.summary.get("warnings", ())),
        "left_out": [{"what": each.what, "reason": each.reason} for each in left_out],
        "files": sorted(files),
    }
    files[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    files[PAGE] = page.encode()
    for name, data in files.items():
        write_whole(out / name, data)
    for name in earlier - set(files):
        (out / name).unlink(missing_ok=True)
    return tuple(out / name for name in files)


def _listed(out: Path) -> set[str]:
    """The figures and tables that an earlier report lists as its own."""
    try:
        names = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    # A list is only text: nothing outside the two folders is ever taken away.
    return {n for n in names if isinstance(n, str) and n.split("/")[0] in ("figures", "tables") and n.count("/") == 1}
