"""What a report is made of: sections with pictures, tables, and a word on what had to be left out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with the file name it is kept under, its caption, and its text for those who cannot see it."""

    name: str
    title: str
    figure: "Figure"
    caption: str
    alt: str


@dataclass(frozen=True)
class LeftOut:
    """An analysis that could not be made, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Section:
    """A family of analyses as shown; `key` is its anchor in the page."""

    key: str
    title: str
    intro: str = ""
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
