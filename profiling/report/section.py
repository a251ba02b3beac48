"""What a report is made of: sections with pictures and tables, why an analysis is missing, and figures as words."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...adapters import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Table:
    """Rows with the same columns; a value that is not known is None or NaN."""

    name: str
    title: str
    rows: Sequence[Row]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in their order."""
        return tuple(self.rows[0]) if self.rows else ()

    def to_csv(self) -> bytes:
        """UTF-8 with a header; what is not known is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_known(row) for row in self.rows)
        return text.getvalue().encode()

    def to_parquet(self) -> bytes:
        """One column each, null where a value is not known.

        Raises:
            ImportError: the `report` extra is missing.
        """
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as exc:
            raise ImportError('Parquet tables need pyarrow: pip install "traitroute[report]"', name="pyarrow") from exc
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist([_known(row) for row in self.rows]), buffer)
        return buffer.getvalue()

    def shown(self, most: int) -> list[list[str]]:
        """The first `most` rows as text."""
        return [[_text(value) for value in row.values()] for row in self.rows[:most]]


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, its caption, and a text alternative for readers who cannot see it."""

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


Found = TypeVar("Found")


@dataclass(frozen=True)
class Missing:
    """Why an analysis is left out, in one sentence."""

    reason: str


def attempt(find: Callable[[], Found]) -> Found | Missing:
    """The result of `find`, or the reason why data, a model or a library for it is missing."""
    try:
        return find()
    except (InputError, ImportError, OSError) as exc:
        return Missing(" ".join(str(exc).split()))


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as percent."""
    return "unknown" if np.isnan(share) else f"{100 * share:.{digits}f}%"


def points(gain: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * gain + 0.0:+.1f} points"


def between(low: float, high: float, *, factor: float = 100, form: str = "+.1f") -> str:
    """A 95% interval."""
    return f"95% interval {factor * low:{form}} to {factor * high:{form}}"


def p_value(p: float) -> str:
    """A p-value, never printed as zero."""
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def counted(n: int, noun: str) -> str:
    """A number with its noun: "1 cell", "no cells"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"1 {noun}" if n == 1 else f"{n or 'no'} {plural}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names with commas and an "and"; those past `most` are counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "none"


def span(values: Sequence[float]) -> str:
    """A number, or the least and the most of several."""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def is_or_are(n: int) -> str:
    """The verb of `n` things."""
    return "is" if n == 1 else "are"


def _known(row: Row) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return "0" if value == 0 else f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:.3g}"
    return str(value)
