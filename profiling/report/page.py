"""The page: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined

from .images import Image
from .section import Section

ROWS_SHOWN = 40
"""Rows of a table that the page shows; the files hold all of them."""


@dataclass(frozen=True)
class Head:
    """What was profiled: names and sizes, as the page's first lines, and what is odd about the rows."""

    suite: str
    facts: Mapping[str, str]
    warnings: Sequence[str] = ()


def render_page(head: Head, sections: Sequence[Section], images: Mapping[str, Image]) -> str:
    """The page as HTML; `images` by the names of the sections' pictures."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("traitroute.profiling.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(head=head, sections=sections, images=images, rows_shown=ROWS_SHOWN)
