"""A profile's summary as it is stored: JSON, and apart from it, as arrays, what has a row for each adapter.

Of ten thousand adapters these are millions of numbers, which take a server half a second to read as JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

Array = NDArray[Any]
_TABLES = ("scores", "trait_scores")
_ESTIMATES = ("errors", "examples")
_ESTIMATED = "estimated"


def pack(summary: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The JSON of a summary, and a safetensors file of its tables; tables of unequal rows stay in the JSON."""
    told, arrays = dict(summary), {}
    for part in _TABLES:
        if (table := _table(summary.get(part))) is not None:
            arrays[part] = table
            del told[part]
    paired = {f"paired.{name}": _table(rows) for name, rows in summary.get("paired", {}).items()}
    if paired and all(table is not None for table in paired.values()):
        arrays |= paired
        del told["paired"]
    estimated = summary.get(_ESTIMATED, {})
    if estimated and all(set(row) == set(_ESTIMATES) for row in estimated.values()):
        columns = {p: _table([row[p] for row in estimated.values()]) for p in _ESTIMATES}
        if all(table is not None for table in columns.values()):
            arrays |= {f"{_ESTIMATED}.{part}": table for part, table in columns.items()}
            told[_ESTIMATED] = list(estimated)
    return told, save(arrays) if arrays else b""


def unpack(told: dict[str, Any], tables: bytes) -> dict[str, Any]:
    """The summary, with arrays for tables."""
    found, arrays = dict(told), load(tables) if tables else {}
    for name, table in arrays.items():
        part, _, column = name.partition(".")
        if not column:
            found[part] = table
        elif part == "paired":
            found.setdefault(part, {})[column] = table
    if f"{_ESTIMATED}.{_ESTIMATES[0]}" in arrays:
        columns = [arrays[f"{_ESTIMATED}.{part}"] for part in _ESTIMATES]
        found[_ESTIMATED] = {
            name: dict(zip(_ESTIMATES, row, strict=True)) for name, *row in zip(told[_ESTIMATED], *columns, strict=True)
        }
    return found


def as_lists(value: Any) -> Any:
    """The same with lists for arrays, as it was given to be stored."""
    if isinstance(value, dict):
        return {key: as_lists(part) for key, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _table(rows: Any) -> Array | None:
    """Rows of numbers as an array, of the smallest type for counts; None where they are not that."""
    try:
        table = np.array(rows)
    except ValueError:
        return None
    if table.ndim != 2 or not table.size or table.dtype.kind not in "if":
        return None
    if table.dtype.kind == "i" and table.min() >= 0:
        return table.astype(np.min_scalar_type(table.max()))
    return table
