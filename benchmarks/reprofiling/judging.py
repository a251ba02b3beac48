"""How good an estimate of an adapter's row is, beside the row measured in full."""

from dataclasses import dataclass

import numpy as np

from .left_out import LeftOut
from .ways import Way


@dataclass(frozen=True)
class RowScore:
    """What one estimate of one adapter's row is worth; errors of gains in points, everything else in [0, 1].

    `unchanged` is the share of all requests that are routed as with the full row, `around` that of the requests which
    one of the two sends to the new adapter, `lost` what the mean score of all requests is lower by, in points;
    `covered` is the share of gains within 1.96 standard errors.
    """

    examples: float
    tokens: float
    gains: float
    worst: float
    traits: float
    unchanged: float
    around: float
    lost: float
    covered: float


def judge(case: LeftOut, way: Way, share: float, seed: int) -> RowScore:
    """Estimate the left-out adapter's row from `share` of its examples, and compare with the full row."""
    row = way(case, share, seed)
    errors = 100 * np.abs(row.gains - case.gains)
    known = ~np.isnan(errors)
    unchanged, around, lost = case.agreement(row.gains)
    within = errors <= 196 * row.errors + 1e-9
    return RowScore(
        examples=len(row.rows) / case.size,
        tokens=float(case.tokens[row.rows].sum() / case.tokens.sum()),
        gains=float(errors[known].mean()),
        worst=float(errors[known].max()),
        traits=case.trait_error(row.gains),
        unchanged=unchanged,
        around=around,
        lost=100 * lost,
        covered=float(within.mean()),
    )
