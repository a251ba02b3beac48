"""Figures as words, for captions."""

from collections.abc import Sequence

import numpy as np

Bounds = tuple[float, float]


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
