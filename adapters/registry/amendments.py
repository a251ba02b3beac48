"""What amended a profile without a fit: corrections from outcomes, and recurring kinds of request that were judged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Correction:
    """How much an adapter's decisions on a kind of request turned out better than predicted, beside those for base.

    `kind` is a profiled task, or None for what is like none. `decisions` are those with a reward, of the adapter, and
    `of_base` those of base on that kind; `difference` and its standard `error` are None where they are too few.
    `correction` is what is made of it, where `before` was in force.
    """

    adapter: str
    decisions: int
    difference: float | None
    error: float | None
    correction: float
    kind: str | None = None
    of_base: int = 0
    before: float = 0.0


@dataclass(frozen=True)
class JudgedKind:
    """A recurring kind of request that joined the profile, and where that comes from: judged, on so many `requests`.

    What is chosen with it is believed better by `lead` than what was chosen before, `low` being the lower bound.
    `gains` are those believed of the `adapters` that were compared.
    """

    kind: str
    judge: str
    judged_at: str
    requests: int
    lead: float
    low: float
    adapters: tuple[str, ...]
    gains: tuple[float, ...]
