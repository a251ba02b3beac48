"""The summary of a fitted profile: what was measured, the traits found in it, and how far both can be trusted.

It is stored as JSON. Tables with a row for each adapter lie beside it as safetensors: with ten thousand adapters they
are millions of numbers, which would take a server seconds to read as JSON.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .amendments import Composite, Correction, JudgedKind

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
RoutingScore = Literal["strict", "lenient", "metric"]
"""Which of an example's scores a task's gains are of: right as asked for, right anywhere, or what its metric gives."""


def _as_array(dimensions: int, kind: type[np.float64 | np.int64]) -> Callable[[Any], NDArray[Any]]:
    def check(value: Any) -> NDArray[Any]:
        try:
            array = np.asarray(value, kind)
        except TypeError as exc:
            raise ValueError(str(exc)) from exc
        if array.ndim != dimensions:
            raise ValueError(f"{array.ndim} dimensions, {dimensions} expected")
        return array

    return check


_AS_LISTS = PlainSerializer(lambda array: array.tolist())
Vector = Annotated[Array, PlainValidator(_as_array(1, np.float64)), _AS_LISTS]
Matrix = Annotated[Array, PlainValidator(_as_array(2, np.float64)), _AS_LISTS]
CountMatrix = Annotated[Counts, PlainValidator(_as_array(2, np.int64)), _AS_LISTS]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def changed(self, **changes: Any) -> Self:
        """A copy with other values, checked like any other."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)


class Stability(_Part):
    """How r components over the tasks fare when the fit is repeated on resampled data.

    `median` and `low` (r,) are the median and the 2.5% point of the |cosine| between a component and its match;
    `loading_low` and `loading_high` (r, tasks) bound 95% of the matched loadings, their signs aligned; `sign_share`
    (r, tasks) is the share of resamples that keep a loading's sign. `chance` is the median |cosine| between as many
    random directions, matched likewise.
    """

    median: Vector
    low: Vector
    loading_low: Matrix
    loading_high: Matrix
    sign_share: Matrix
    chance: float
    n_bootstrap: int


class TraitName(_Part):
    """A name, the loadings above the average size on either side (at most five), and the evidence for the name."""

    name: str
    raises: tuple[tuple[str, float], ...] = ()
    lowers: tuple[tuple[str, float], ...] = ()
    evidence: str


class FittedTraits(_Part):
    """The r components of the gains, of which the first `n_traits` route.

    `loadings` (r, tasks) have length 1; `explained_variance` (r,) are shares, `null` and `null_mean` (r,) the 95th
    percentile and the mean of these shares in permuted gains, `p_values` (r,) theirs. `gain_means` and `gain_scales`
    (tasks,) are what gains are centred and divided by before they are projected; rows that join later do not move
    them. `labels` are the owner's names, by component from 1.
    """

    scaling: Literal["raw", "standardised"] = "raw"
    n_traits: int
    loadings: Matrix
    explained_variance: Vector
    null: Vector
    null_mean: Vector
    p_values: Vector
    gain_means: Vector
    gain_scales: Vector
    names: tuple[TraitName, ...]
    labels: Mapping[int, str] = {}
    by_examples: Stability
    by_adapters: Stability

    def __len__(self) -> int:
        return len(self.loadings)

    def is_trait(self, i: int) -> bool:
        """Whether component `i`, from 0, is a trait: its share of variance exceeds the permutation null.

        `n_traits` is at least 1, also where no component does.
        """
        return i < self.n_traits and bool(self.explained_variance[i] > self.null[i])

    @property
    def claimed(self) -> int:
        """How many components are traits."""
        return sum(map(self.is_trait, range(self.n_traits)))

    def label(self, i: int) -> str | None:
        """The owner's name for component `i`, from 0."""
        return self.labels.get(i + 1)

    def name(self, i: int) -> str:
        """What component `i`, from 0, is called: the owner's label, else the name derived from its loadings."""
        return self.label(i) or self.names[i].name

    def project(self, gains: Array) -> Array:
        """Trait scores (r,) of gains (tasks,), or of rows of them."""
        return (gains - self.gain_means) / self.gain_scales @ self.loadings.T

    def reconstruct(self, trait_scores: Array) -> Array:
        """The gains (tasks,) that trait scores (r,) stand for."""
        return trait_scores @ self.loadings * self.gain_scales + self.gain_means


class PairedOutcomes(_Part):
    """Per adapter and task, (adapters, tasks): `examples` measured, on how many (`differing`) adapter and base scored
    differently, and the sum of their squared differences: `squares`, as many as differ where all are right or wrong.
    All are 0 in rows that were measured on a part of the examples.
    """

    differing: CountMatrix
    squares: Matrix
    examples: CountMatrix

    @classmethod
    def of(cls, differences: Sequence[Array]) -> Self:
        """Those of each task's example-by-example differences from base, (examples, adapters)."""
        return cls(
            differing=np.stack([(d != 0).sum(axis=0) for d in differences], axis=1),
            squares=np.stack([(d**2).sum(axis=0) for d in differences], axis=1),
            examples=np.stack([np.full(d.shape[1], len(d)) for d in differences], axis=1),
        )

    @classmethod
    def none(cls, adapters: int, tasks: int) -> Self:
        """Of rows of which only a part was measured."""
        nothing = np.zeros((adapters, tasks), np.int64)
        return cls(differing=nothing, squares=nothing.astype(float), examples=nothing)

    def take(self, rows: Sequence[int]) -> Self:
        """Those of some adapters."""
        return type(self)(**{name: table[list(rows)] for name, table in self})

    def with_row(self, place: int, row: Self) -> Self:
        """These, with the one `row` at a place, or after the last."""
        tables = {name: np.vstack([t[:place], getattr(row, name), t[place + 1 :]]) for name, t in self}
        return type(self)(**tables)


class Estimates(_Part):
    """Rows measured on a part of the examples: standard `errors` of the gains, and `examples` measured, (rows,
    tasks).
    """

    adapters: tuple[str, ...]
    errors: Matrix
    examples: CountMatrix

    @classmethod
    def none(cls, tasks: int) -> Self:
        """No such rows, over so many tasks."""
        return cls(adapters=(), errors=np.zeros((0, tasks)), examples=np.zeros((0, tasks), np.int64))

    def without(self, names: Collection[str]) -> Self:
        """The rows of other adapters than these."""
        kept = [i for i, name in enumerate(self.adapters) if name not in names]
        adapters = tuple(self.adapters[i] for i in kept)
        return type(self)(adapters=adapters, errors=self.errors[kept], examples=self.examples[kept])

    def with_row(self, adapter: str, errors: Array, examples: Counts) -> Self:
        """These rows and that of one more adapter."""
        return type(self)(
            adapters=(*self.adapters, adapter),
            errors=np.vstack([self.errors, errors]),
            examples=np.vstack([self.examples, examples]),
        )


class TrainingNote(_Part):
    """What is known of an adapter's making that no source task tells: a file of `rows`, ids of `datasets`, or that it
    was merged of others."""

    rows: str | None = None
    datasets: tuple[str, ...] = ()
    composite: Composite | None = None


@dataclass(frozen=True)
class NewRow:
    """The row of one adapter over `tasks`: `gains` and standard `errors` (tasks,), 0 for tasks measured in full.

    `examples` (tasks,) were measured, and `cells` are the keys of the cells; `replaced` are keys of earlier whole cells
    of this name. `paired` is of a row that was measured in full, else None. `note` is on the adapter's making, and
    `everyday` is what it loses on everyday requests (None: not measured).
    """

    adapter: str
    weights_digest: str
    tasks: tuple[str, ...]
    gains: Array
    errors: Array
    examples: NDArray[np.intp]
    cells: tuple[str, ...]
    replaced: frozenset[str] = frozenset()
    paired: PairedOutcomes | None = None
    note: TrainingNote | None = None
    everyday: float | None = None

    @property
    def whole(self) -> bool:
        """Whether every example was measured."""
        return self.paired is not None


class ProfileSummary(_Part):
    """What a profile was fitted to and what the fit gave, for people, skill cards and later fits.

    `base` (tasks,) and `scores` (adapters, tasks) are mean scores in [0, 1], shares of right answers where every answer
    is right or wrong; `scored_by` says by task which of the outcomes they are of. `trait_scores` are (adapters, r).
    `cells` are the keys of the whole cells, `weights` the adapters' digests when they were measured; `joined` are the
    adapters whose rows joined after the fit. `training` is what is known of the training of adapters that were given,
    not trained. `everyday` is what adapters lose on everyday requests, in score points, where that was measured.
    `ablations` are specifications that profiling understands.
    """

    suite: str = ""
    base_model: str
    method: str = "lora"
    ablations: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    tasks: tuple[str, ...]
    scored_by: Mapping[str, RoutingScore] = {}
    adapters: tuple[str, ...]
    base: Vector
    scores: Matrix
    trait_scores: Matrix
    paired: PairedOutcomes
    estimated: Estimates
    traits: FittedTraits
    cells: tuple[str, ...]
    weights: Mapping[str, str]
    joined: tuple[str, ...] = ()
    training: Mapping[str, TrainingNote] = {}
    everyday: Mapping[str, float] = {}
    recalibration: tuple[Correction, ...] = ()
    recurring: tuple[JudgedKind, ...] = ()

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        a, t, r = len(self.adapters), len(self.tasks), len(self.traits)
        parts = [(self, ("scores",), (a, t)), (self, ("trait_scores",), (a, r)), (self, ("base",), (t,))]
        parts += [(self.paired, ("differing", "squares", "examples"), (a, t))]
        parts += [(self.estimated, ("errors", "examples"), (len(self.estimated.adapters), t))]
        parts += [(self.traits, ("loadings",), (r, t)), (self.traits, ("gain_means", "gain_scales"), (t,))]
        parts += [(self.traits, ("explained_variance", "null", "null_mean", "p_values"), (r,))]
        for stability in (self.traits.by_examples, self.traits.by_adapters):
            parts += [(stability, ("loading_low", "loading_high", "sign_share"), (r, t))]
            parts += [(stability, ("median", "low"), (r,))]
        for part, names, shape in parts:
            for name in names:
                if (found := getattr(part, name).shape) != shape:
                    raise ValueError(f"{name} has shape {found}, {shape} expected")
        if len(self.traits.names) != r:
            raise ValueError(f"{len(self.traits.names)} names for {r} components")
        if lacking := set(self.adapters) - self.weights.keys():
            raise ValueError(f"no weights of {', '.join(sorted(lacking))}")
        if unknown := set(self.estimated.adapters) - set(self.adapters):
            raise ValueError(f"estimated rows of adapters that are not among its own: {', '.join(sorted(unknown))}")
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProfileSummary) and self.pack() == other.pack()

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, (adapters, tasks)."""
        return self.scores - self.base

    @property
    def whole(self) -> tuple[str, ...]:
        """The adapters that were measured on every example of every task."""
        estimated = set(self.estimated.adapters)
        return tuple(name for name in self.adapters if name not in estimated)

    def score_of(self, task: str) -> RoutingScore:
        """Which of the outcomes the task's scores are of."""
        return self.scored_by.get(task, "metric")

    def row(self, adapter: str) -> int | None:
        """The adapter's row in the matrices, if it has one."""
        return self.adapters.index(adapter) if adapter in self.adapters else None

    def with_row(self, row: NewRow) -> Self:
        """The summary with a row more, or another one for its adapter; the traits stay as they were fitted.

        Scores are gains over this profile's base row, which another engine may have measured.
        """
        place = self.row(row.adapter)
        place = len(self.adapters) if place is None else place

        def put(rows: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
            return np.vstack([rows[:place], values, rows[place + 1 :]])

        cells = [key for key in self.cells if key not in row.replaced]
        training = dict(self.training)
        if self.weights.get(row.adapter) != row.weights_digest:
            # It was on other weights of that name.
            training.pop(row.adapter, None)
        if row.note is not None:
            training[row.adapter] = row.note
        everyday = {name: lost for name, lost in self.everyday.items() if name != row.adapter}
        if row.everyday is not None:
            everyday[row.adapter] = row.everyday
        estimated = self.estimated.without([row.adapter])
        if row.whole:
            cells = list(dict.fromkeys([*cells, *row.cells]))
        else:
            estimated = estimated.with_row(row.adapter, row.errors, row.examples.astype(np.int64))
        return self.changed(
            adapters=(*self.adapters[:place], row.adapter, *self.adapters[place + 1 :]),
            scores=put(self.scores, self.base + row.gains),
            trait_scores=put(self.trait_scores, self.traits.project(row.gains)),
            paired=self.paired.with_row(place, row.paired or PairedOutcomes.none(1, len(self.tasks))),
            cells=tuple(cells),
            estimated=estimated,
            weights={**self.weights, row.adapter: row.weights_digest},
            joined=tuple(dict.fromkeys([*self.joined, row.adapter])),
            training=training,
            everyday=everyday,
        )

    def without(self, names: Collection[str], cells: Collection[str]) -> Self:
        """The summary without the rows of some adapters, whose whole cells have the keys `cells`."""
        kept = [i for i, name in enumerate(self.adapters) if name not in names]
        return self.changed(
            adapters=tuple(self.adapters[i] for i in kept),
            scores=self.scores[kept],
            trait_scores=self.trait_scores[kept],
            paired=self.paired.take(kept),
            cells=tuple(key for key in self.cells if key not in cells),
            estimated=self.estimated.without(names),
            weights={name: digest for name, digest in self.weights.items() if name not in names},
            joined=tuple(name for name in self.joined if name not in names),
            training={name: note for name, note in self.training.items() if name not in names},
            everyday={name: lost for name, lost in self.everyday.items() if name not in names},
        )

    def pack(self) -> tuple[dict[str, Any], bytes]:
        """The summary as JSON, and as a safetensors file the tables that have a row for each adapter."""
        tables = {"scores": self.scores, "trait_scores": self.trait_scores}
        tables |= {f"paired.{name}": _smallest(table) for name, table in self.paired}
        tables |= {"estimated.errors": self.estimated.errors, "estimated.examples": _smallest(self.estimated.examples)}
        apart = {"scores": True, "trait_scores": True, "paired": True, "estimated": {"errors", "examples"}}
        return self.model_dump(mode="json", exclude=apart), save(tables)

    @classmethod
    def unpack(cls, stored: Mapping[str, Any], tables: bytes) -> Self:
        """The summary that was packed.

        Raises:
            ValueError: parts are missing, or do not fit together.
        """
        parts = dict(stored)
        try:
            arrays = load(tables) if tables else {}
        except SafetensorError as exc:
            raise ValueError(f"its tables are no safetensors: {exc}") from exc
        for place, table in arrays.items():
            part, _, name = place.partition(".")
            parts[part] = {**parts.get(part, {}), name: table} if name else table
        return cls.model_validate(parts)


def _smallest(table: Array | Counts) -> NDArray[Any]:
    """The table, of nothing below 0, in few bytes: whole numbers exactly, others to seven digits."""
    if not np.array_equal(table, np.round(table)):
        return table.astype(np.float32)
    return table.astype(np.min_scalar_type(int(table.max(initial=0))))
