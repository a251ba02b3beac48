"""A fleet of made-up adapters whose structure is real: trait scores drawn from those of the measured ones.

Traits and the routing profile are fitted to 50 data sets of `routing/smollm2.safetensors`. A drawn adapter has scores
of the fitted ones' mean and covariance; its score on a task is what these give, plus the error of measuring 100
examples. Its example gains, which only a refit reads, are +1, 0 or -1 with the mean that the traits give.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from made_up_summary import made_up_summary, traits_of
from numpy.typing import NDArray
from sqlalchemy import create_engine, insert
from traitroute.adapters import Adapter, AdapterState, Estimates, PairedOutcomes, ProfileSummary, Registry
from traitroute.adapters.registry import schema
from traitroute.adapters.registry.adapters import to_row
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import FitRequests, RoutingProfile, TrainingRows, fit_profile
from traitroute.router.training_profiles import IN_ALL, TrainingProfiles

from .ours import fit_requests, rows_of
from .table import SMOLLM2
from .trials import design_table

TASKS = 50
EXAMPLES = 100
MEASURED_WHOLE = 50
"""So many adapters were measured at the start; the others joined a row at a time."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Drawn adapters: `scores` (a, r) in trait space, and the `gains` (a, tasks) that measuring them found."""

    names: tuple[str, ...]
    scores: Array
    gains: Array


class Fleet:
    """What is fitted to the measured ones, and draws of any number."""

    def __init__(self, outcomes: Path = SMOLLM2, *, seed: int = 0) -> None:
        self.table = design_table(outcomes)
        self.random = np.random.default_rng(seed)
        self.places = np.flatnonzero(np.array(self.table.kinds) == "main")[:TASKS]
        self.tasks = [self.table.tasks[i] for i in self.places]
        self.rows = np.flatnonzero(np.isin(self.table.task, self.places))
        self.strict: Array = self.table.strict[self.rows].astype(float)
        self.base = np.array([self.strict[self._of(t), 0].mean() for t in self.places])

    def _of(self, task: int) -> NDArray[np.bool_]:
        return self.table.task[self.rows] == task

    @cached_property
    def measured(self) -> Array:
        """Gains of the measured adapters, (a, tasks)."""
        gains = self.strict[:, 1:] - self.strict[:, :1]
        return np.stack([gains[self._of(t)].mean(axis=0) for t in self.places], axis=1)

    @cached_property
    def traits(self) -> TraitSpace:
        """Fitted to the measured ones."""
        return TraitSpace(n_permutations=200).fit(self.measured)

    @cached_property
    def profile(self) -> RoutingProfile:
        """Fitted to the measured ones."""
        scores = self.traits.transform(self.measured)
        requests = fit_requests(self.table, self.rows, self.strict, range(len(scores)))
        return fit_profile(self.table.adapters, requests, scores, n_traits=self.traits.n_traits_)

    @cached_property
    def rows_known(self) -> list[TrainingRows]:
        """What the measured ones were trained on."""
        return [rows_of(self.table, i) for i in range(len(self.table.adapters))]

    def requests(self, gains: Array) -> FitRequests:
        """The measured requests with the example gains of some adapters, (n, a)."""
        requests = fit_requests(self.table, self.rows, self.strict, ())
        return replace(requests, gains=gains, sources=None)

    def draw(self, size: int) -> Drawn:
        """Draw adapters."""
        fitted = self.traits.transform(self.measured)
        covariance = np.atleast_2d(np.cov(fitted, rowvar=False))
        scores = self.random.multivariate_normal(fitted.mean(axis=0), covariance, size)
        true = np.clip(self.base + self.traits.inverse_transform(scores), 0, 1)
        seen = self.random.binomial(EXAMPLES, true) / EXAMPLES
        return Drawn(tuple(f"adapter-{i:05}" for i in range(size)), scores, seen - self.base)

    def draw_examples(self, drawn: Drawn) -> Array:
        """Example gains (n, a) of drawn adapters on the measured requests."""
        place = {int(t): j for j, t in enumerate(self.places)}
        mean = drawn.gains[:, [place[int(t)] for t in self.table.task[self.rows]]].T
        return np.sign(mean) * (self.random.random(mean.shape) < np.abs(mean))

    def routing_profile(self, drawn: Drawn) -> RoutingProfile:
        """The fitted profile with the drawn adapters in place of the measured ones."""
        like = [i % len(self.rows_known) for i in range(len(drawn.names))]
        room = IN_ALL * len(self.rows_known) // len(like)
        training = TrainingProfiles.of(self.rows_known, self.profile.features, room=room)
        taken = replace(self.profile, training=training).take(like)
        rank = self.profile.trait_scores.shape[1]
        return replace(taken, adapters=drawn.names, trait_scores=drawn.scores[:, :rank])

    def _errors(self, drawn: Drawn) -> Array:
        """Standard errors of the rows that joined, which were estimated from a tenth of the examples."""
        gains = drawn.gains[MEASURED_WHOLE:]
        return np.sqrt(np.maximum(np.abs(gains) * (1 - np.abs(gains)), 0.01) / (EXAMPLES / 10))

    def summary(self, drawn: Drawn) -> ProfileSummary:
        """The summary of such a profile."""
        shape = drawn.gains.shape
        differing = np.minimum(np.round(EXAMPLES * np.abs(drawn.gains)), EXAMPLES)
        joined = drawn.names[MEASURED_WHOLE:]
        examples = np.full((len(joined), shape[1]), EXAMPLES // 10)
        return made_up_summary(
            drawn.names,
            self.tasks,
            base=self.base,
            scores=np.round(self.base + drawn.gains, 4),
            trait_scores=np.round(drawn.scores, 6),
            paired=PairedOutcomes(differing=differing, squares=differing, examples=np.full(shape, EXAMPLES)),
            estimated=Estimates(adapters=joined, errors=self._errors(drawn), examples=examples),
            traits=traits_of(self.traits),
            weights={name: made_up(name, i).weights_digest for i, name in enumerate(drawn.names)},
            joined=joined,
        )


def made_up(name: str, number: int, *, state: AdapterState = AdapterState.READY) -> Adapter:
    """A record whose weights nobody has."""
    return Adapter(
        name=name,
        base_model="made-up",
        base_digest="f" * 64,
        # The serving id is read from the first half, of which these differ in every bit that counts.
        weights_digest=f"{number:016x}" + "0" * 48,
        rank=8,
        target_modules=("q_proj", "v_proj"),
        state=state,
        licence="mit",
        uri=f"hub://team/{name}",
    )


def fill(registry: Registry, names: tuple[str, ...]) -> None:
    """Put records into an empty registry at once; adding them one by one is measured elsewhere."""
    location = registry.location
    engine = create_engine(location.url or f"sqlite:///{location.path}")
    rows = [to_row(made_up(name, i)) | {"measured": True} for i, name in enumerate(names)]
    with engine.begin() as connection:
        connection.execute(insert(schema.adapters), rows)
    engine.dispose()
