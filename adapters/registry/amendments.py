"""What amended a profile without a fit: corrections from outcomes, recurring kinds of request that were judged, and
adapters that were merged of others."""

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


@dataclass(frozen=True)
class Recipe:
    """How PEFT merges adapters into one: by `method`, with a weight for each of the `parents`, to at most `rank`.

    `digests` are those of the parents' weights. `density` is the share of numbers that is kept, None where all are;
    `seed` decides which, where that is drawn.
    """

    parents: tuple[str, ...]
    digests: tuple[str, ...]
    weights: tuple[float, ...]
    method: str
    rank: int
    density: float | None = None
    seed: int = 0

    def __str__(self) -> str:
        parts = " + ".join(f"{weight:.2f} {name}" for name, weight in zip(self.parents, self.weights, strict=True))
        return f"{self.method} of {parts}"


@dataclass(frozen=True)
class Composite:
    """An adapter merged by a `recipe`, and how it did on `tasks` against `single`, the best adapter there by itself.

    The mean score is better by `lead`, at least by `low`: on `examples` by which nothing was chosen, in an interval
    that allows for the `tried` candidates.
    """

    recipe: Recipe
    tasks: tuple[str, ...]
    single: str
    examples: int
    tried: int
    lead: float
    low: float
