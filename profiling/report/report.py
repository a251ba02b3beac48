"""Write the report of a study: analyse, draw, describe, save; the page last, since it is what a reader opens."""

import base64
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from rich.progress import Progress

from ...adapters import InputError
from ..forecast.forecast import Forecasts
from ..study import Study
from .ablations import ablation_section, find_ablations
from .classes import class_section, find_classes
from .corpus import Corpus
from .drawing import figure_style
from .forecast import forecast_section
from .gains import find_gains, gain_section
from .lengths import find_lengths, length_section
from .retraining import find_retraining, retraining_section
from .section import LeftOut, Missing, Section, Table, attempt, span
from .similarity import find_similarity, similarity_section
from .syntax import find_syntax, syntax_section
from .traits import find_traits, trait_section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
MANIFEST = "report.json"
DPI = 160
ROWS_SHOWN = 40
"""Rows of a table that the page shows; the files hold all of them."""


@dataclass(frozen=True)
class Family:
    """One family: `find` makes its findings, `show` its section."""

    key: str
    title: str
    find: Callable[[Study, Corpus], Any]
    show: Callable[[Any], Section]

    def section(self, study: Study, corpus: Corpus) -> Section:
        """The family's section; where its data, model or library is absent, a sentence that says so."""
        findings = attempt(lambda: self.find(study, corpus))
        if isinstance(findings, Missing):
            return Section(self.key, self.title, left_out=(LeftOut(self.title, findings.reason),))
        return self.show(findings)


FAMILIES = (
    Family("gains", "Gains and side effects", lambda s, _: find_gains(s), gain_section),
    Family("traits", "Traits", lambda s, _: find_traits(s), trait_section),
    Family("lengths", "Length habits", lambda s, _: find_lengths(s), length_section),
    Family("classes", "Class habits", find_classes, class_section),
    Family("syntax", "Syntax", find_syntax, syntax_section),
    Family("similarity", "Similarity of the data", find_similarity, similarity_section),
    Family("ablations", "Ablations and controls", lambda s, _: find_ablations(s), ablation_section),
    Family("retraining", "Trained again", lambda s, _: find_retraining(s), retraining_section),
)


@dataclass(frozen=True)
class Image:
    """One figure as PNG and as SVG; `width` is its natural width in CSS pixels."""

    png: bytes
    svg: bytes
    width: int

    @property
    def data_uri(self) -> str:
        """The SVG as text that an `img` can hold: sharp at any size, and apart from the page's names."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


@dataclass(frozen=True)
class Head:
    """The page's first lines: names and sizes of what was profiled, and warnings about its rows."""

    suite: str
    facts: Mapping[str, str]
    warnings: Sequence[str] = ()


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
        images = {p.name: _render(p.figure) for s in sections for p in s.pictures}
    page = _render_page(_head(study, profiled_on), sections, images)
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
        "Method": study.summary.method,
        "Profile": f"version {study.version}" + (f", of {profiled_on.isoformat()}" if profiled_on else ""),
        "Adapters": f"{len(study.adapters)}, and {len(study.ablations)} ablations",
        "Tasks": f"{len(study.tasks)}, with {span(sizes)} test examples each, {sum(sizes)} in all",
    }
    return Head(study.suite, facts, study.summary.warnings)


def _save(
    study: Study, out: Path, page: str, images: dict[str, Image], tables: Sequence[Table], left_out: Sequence[LeftOut]
) -> tuple[Path, ...]:
    """Write all files, then the page, then remove files that only an earlier report had."""
    files = {
        f"figures/{name}.{kind}": getattr(image, kind) for name, image in images.items() for kind in ("png", "svg")
    }
    files |= {f"tables/{t.name}.csv": t.to_csv() for t in tables}
    files |= {f"tables/{t.name}.parquet": t.to_parquet() for t in tables}
    earlier = _listed(out)
    manifest = {
        "suite": study.suite,
        "profile_version": study.version,
        "warnings": list(study.summary.warnings),
        "left_out": [{"what": each.what, "reason": each.reason} for each in left_out],
        "files": sorted(files),
    }
    files[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    files[PAGE] = page.encode()
    for name, data in files.items():
        _write_whole(out / name, data)
    for name in earlier - set(files):
        (out / name).unlink(missing_ok=True)
    return tuple(out / name for name in files)


def _listed(out: Path) -> set[str]:
    """The figures and tables that an earlier report lists as its own."""
    try:
        names = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    # The manifest is only text: nothing outside the two folders is ever removed.
    return {n for n in names if isinstance(n, str) and n.split("/")[0] in ("figures", "tables") and n.count("/") == 1}


def _render(figure: "Figure") -> Image:
    """Draw `figure` without a display, and without the date that would make each run differ."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(png, format="png", dpi=DPI)
    FigureCanvasSVG(figure)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Image(png.getvalue(), svg.getvalue(), round(100 * figure.get_figwidth()))


def _render_page(head: Head, sections: Sequence[Section], images: Mapping[str, Image]) -> str:
    """The page as HTML; `images` by the names of the sections' pictures."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("traitroute.profiling.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(head=head, sections=sections, images=images, rows_shown=ROWS_SHOWN)


def _write_whole(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file and rename it to `path`, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only the owner can read; a report is to be shared.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
