"""Tables of the report: rows of plain values, as CSV, as Parquet, and as cells of the page."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def _known(row: Row) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return "0" if value == 0 else f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:.3g}"
    return str(value)
