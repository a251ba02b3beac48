"""What the router decides for one request: which adapter, what gain is expected, and why."""

from typing import Self

from pydantic import BaseModel, ConfigDict

NOVEL = 0.65
"""From this novelty on a request is like nothing profiled. On the public prompts that the routing benchmark is designed
on it parts data sets left out (91% above) from new requests of profiled ones (23%), benchmarks/suggestions.py."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Affinity(_Frozen):
    """The predicted gain of one adapter over the base model on one request, in score points of [-1, 1].

    `low` and `high` lie one standard error from it, or more where decisions ask for more (`RoutingDecision.caution`).
    """

    adapter: str
    gain: float
    low: float
    high: float


class NearTask(_Frozen):
    """A profiled task that the request is like, by `similarity` in [0, 1], in words and in meaning."""

    task: str
    similarity: float


class Change(_Frozen):
    """The smallest change of one part of the demand that would change the choice to `adapter` (None: base).

    `part` is "mean" or a component; its demand is now `demand`, and would have to pass `needed`.
    """

    adapter: str | None
    part: str
    demand: float
    needed: float


class RoutingDecision(_Frozen):
    """The adapter chosen for a request, or `None` for the base model, with the evidence.

    `gain` and `interval` are those of the chosen adapter (0 for base); `margin` is its lead over the next best;
    `ranking` lists the best routable adapters, best first; one surely helps where its gain exceeds the least gain by
    `caution`, the profile's z standard errors. `contributions` splits the predicted gain of the best-ranked adapter
    into its parts, which add up to `ranking[0].gain`: `mean`, the share common to all adapters; one part a component;
    `training prompts` and `training answers`, the match with what it was trained on, which are absent where that is not
    known; `everyday`, what is lost if it is an everyday request; `residual`, what traits do not express of an adapter
    that joined; `feedback`, corrections from it; `judged`, what a judge's comparison on requests of this kind makes
    of all that; and `bound`, by how much all that is beyond what a score can gain or lose, which is not told.
    `instead_of` is the adapter of the highest predicted gain where one that need not be loaded was chosen in its place,
    as good within the prediction's error. `novelty` is how unlike the request is to the task that is most like it, in
    [0, 1], and `everyday` how likely it is an everyday one (`everyday.py`). `recurring` is the judged kind that it is
    of (`recurring.py`). `change` is given where it was asked for.
    """

    adapter: str | None
    gain: float
    interval: tuple[float, float]
    margin: float
    reason: str
    demand: dict[str, float]
    contributions: dict[str, float]
    nearest_tasks: tuple[NearTask, ...]
    ranking: tuple[Affinity, ...]
    profile_version: int
    novelty: float = 0.0
    everyday: float = 0.0
    recurring: str | None = None
    caution: float = 0.0
    instead_of: str | None = None
    change: Change | None = None

    @property
    def is_new(self) -> bool:
        """Whether the request is like nothing profiled, and of no judged kind."""
        return self.novelty >= NOVEL and self.recurring is None

    @classmethod
    def base(cls, reason: str, *, profile_version: int) -> Self:
        """The base model, without any evidence."""
        return cls(
            adapter=None,
            gain=0.0,
            interval=(0.0, 0.0),
            margin=0.0,
            reason=reason,
            demand={},
            contributions={},
            nearest_tasks=(),
            ranking=(),
            profile_version=profile_version,
        )
