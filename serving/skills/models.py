"""Requests and responses of the skills API: the contract of HTTP, MCP and the page alike.

All gains are differences from the bare base model in score points, in [-1, 1]; negative ones are side effects. `low`
and `high` bound 95% intervals of *measured* gains; those of *predicted* gains lie a standard error away, or more.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...adapters import Composite, FeedbackSource, RoutingScore
from ..constraints import Limits
from ..http.models import PageOf
from ..measured import SCORED_BY, MeasuredGain
from ..proof import Proof, Verdict

MOST_STEPS = 100
MOST_SKILLS = 100
MOST_CHARACTERS = 100_000
"""The longest text that a skill is selected for, in characters; requests for tokens may be longer."""

State = Literal["pending", "ready", "disabled"]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class SelectRequest(_Request):
    """A sub-task, as text or as chat messages, and which skills may be selected for it."""

    task: str | None = Field(default=None, description="The sub-task as text. Give either this or `messages`.")
    messages: list[dict[str, Any]] | None = Field(
        default=None,
        description="The sub-task as chat messages, as for /v1/chat/completions; the first user turn is read.",
    )
    tools: list[dict[str, Any]] | None = Field(
        default=None, description="Tools, as for /v1/chat/completions; they do not change the selection."
    )
    constraints: Limits = Field(default=Limits(), description="Which skills may be selected.")
    k: int = Field(default=5, ge=1, le=MOST_SKILLS, description="How many skills to rank.")

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.task is None) == (self.messages is None):
            raise ValueError('give either "task" (text) or "messages" (chat messages)')
        return self


class PlanRequest(_Request):
    """An agent's whole plan."""

    steps: list[SelectRequest] = Field(
        min_length=1, max_length=MOST_STEPS, description="The sub-tasks, in the order in which they will run."
    )
    max_loss: float = Field(
        default=0.0,
        ge=0,
        le=MOST_STEPS,
        description="The predicted gain, summed over all steps, that may be given up to switch skills less often.",
    )


class RankedSkill(_Answer):
    """A skill, or `base`, in the ranking for one sub-task."""

    name: str = Field(description="The skill's name, to be sent as `model`; `base` is the bare base model.")
    gain: float = Field(description="Predicted gain over the base model, from -1 to 1.")
    low: float = Field(description="Lower end of the predicted gain's interval.")
    high: float = Field(description="Upper end of the predicted gain's interval.")
    loaded: bool | None = Field(description="Whether the server has it loaded; null where the server cannot tell.")
    side_effects: tuple[MeasuredGain, ...] = Field(
        default=(), description="Profiled tasks on which the skill is worse than the base model beyond doubt."
    )


class DemandedTrait(_Answer):
    """How much of one component the sub-task needs."""

    index: int = Field(description="The component's number, from 1.")
    name: str = Field(description="The component's name.")
    demand: float = Field(
        description="How much of it the sub-task needs; times a skill's score it adds to the predicted gain."
    )
    trait: bool = Field(description="Whether the component explains more variance than chance would.")


class LikeTask(_Answer):
    """A profiled task that is similar to the sub-task."""

    task: str = Field(description="The profiled task.")
    similarity: float = Field(description="Cosine similarity, from -1 to 1.")


class Selection(_Answer):
    """The skill to use for a sub-task, and why."""

    choice: str = Field(description="The skill to send as `model`; `base` where no skill is sure to help.")
    gain: float = Field(description="The choice's predicted gain over the base model, from -1 to 1.")
    low: float = Field(description="Lower end of the predicted gain's interval.")
    high: float = Field(description="Upper end of the predicted gain's interval.")
    reason: str = Field(description="Why this choice was made.")
    ranking: tuple[RankedSkill, ...] = Field(description="The best skills and `base`, by predicted gain.")
    demand: tuple[DemandedTrait, ...] = Field(description="How much of each component the sub-task needs.")
    nearest_tasks: tuple[LikeTask, ...] = Field(description="The profiled tasks most similar to the sub-task.")
    profile_version: int = Field(description="The version of the profile that decided.")
    decision: str | None = Field(
        default=None, description="Token with which POST /v1/feedback reports how it went; null where there is none."
    )


class PlannedStep(_Answer):
    """One step of a plan: its own selection, and the skill that the plan assigns to it."""

    selection: Selection = Field(description="The selection for this step alone.")
    assigned: str = Field(description="The skill to send as `model` for this step, or `base`.")
    gain: float = Field(description="Predicted gain of the assigned skill over the base model.")
    loss: float = Field(description="Predicted gain given up against this step's own choice.")
    decision: str | None = Field(
        default=None, description="Token with which POST /v1/feedback reports how the assigned skill did."
    )


class Plan(_Answer):
    """The assignment with the fewest switches of skill within `max_loss`."""

    steps: tuple[PlannedStep, ...] = Field(description="The steps, in the order of the request.")
    switches: int = Field(description="How often the assigned skill changes from one step to the next.")
    unplanned_switches: int = Field(description="How often it would change if every step used its own choice.")
    loss: float = Field(description="Predicted gain given up in all.")
    max_loss: float = Field(description="The limit of `loss` that was requested.")
    profile_version: int = Field(description="The version of the profile that decided.")


class Applied(_Answer):
    """Whether this server applies a skill, by a fixed probe that it reads after each load."""

    verdict: Verdict = Field(
        description="`applied`: the probe changes by more than noise; `idle`: it does not, so the skill is not served; "
        "`unproven`: the probe could not be read, or is blind to this skill."
    )
    effect: float | None = Field(description="The largest change of a log-probability, in nats; null where unread.")
    noise: float | None = Field(description="The base model's own, from one batch to another.")
    reason: str = Field(description="The verdict in words.")

    @classmethod
    def of(cls, proof: Proof | None) -> Self | None:
        """A server's proof; None where there is none."""
        if proof is None:
            return None
        effect, noise = (proof.effect.nats, proof.effect.noise) if proof.effect else (None, None)
        return cls(verdict=proof.verdict, effect=effect, noise=noise, reason=proof.reason)


_EFFECT = Field(
    description="The largest change of a log-probability on the probe when the skill was measured, in nats; null where "
    "it was not."
)
_APPLIED = Field(description="What this server's probe showed when it loaded the skill; null before that.")


class SkillSummary(_Answer):
    """One skill in the list of skills."""

    name: str = Field(description="The skill's name, to be sent as `model`.")
    state: State = Field(description="`pending`: not measured yet, so never chosen for `auto`; `ready`: it may be.")
    source_task: str | None = Field(description="The task whose data it was trained on, where that is known.")
    tags: tuple[str, ...] = Field(description="The operator's tags, by which `constraints.tags` selects.")
    loaded: bool | None = Field(description="Whether the server has it loaded; null where the server cannot tell.")
    effect: float | None = _EFFECT
    applied: Applied | None = _APPLIED
    mean_gain: float | None = Field(description="Mean measured gain over all profiled tasks; null if not measured.")
    best_tasks: tuple[MeasuredGain, ...] = Field(description="The tasks with the highest certain gains.")
    side_effects: tuple[MeasuredGain, ...] = Field(description="Tasks with a certain loss, the worst first.")


class SkillList(PageOf):
    """The skills of this server, by name, a page at a time."""

    base_model: str = Field(description="The base model that all skills adapt.")
    profile_version: int = Field(description="The version of the profile with these gains.")
    skills: tuple[SkillSummary, ...]


class SourceData(_Answer):
    """The data that a skill was trained on, as far as it is known."""

    task: str = Field(description="The task that the data came from.")
    rows: int | None = Field(description="Number of training rows.")
    metric: str | None = Field(description="The metric by which answers are scored.")
    labels: tuple[str, ...] = Field(description="The labels of a classification task.")
    prompt: str | None = Field(description="The template of its prompts.")


class MergedPart(_Answer):
    """An adapter that a composite was merged of."""

    name: str = Field(description="The adapter's name when it was merged.")
    weights_digest: str = Field(description="SHA-256 of the weights that were merged.")
    weight: float = Field(description="With which weight.")


class Merging(_Answer):
    """How a composite was merged of other adapters, and why it was admitted."""

    parts: tuple[MergedPart, ...] = Field(description="What was merged.")
    method: str = Field(description="The method: `combination_type` of PEFT's `add_weighted_adapter`.")
    rank: int = Field(description="The highest rank that it could have.")
    density: float | None = Field(description="The share of numbers that was kept; null where all were.")
    seed: int = Field(description="Of what was drawn, where the method draws.")
    tasks: tuple[str, ...] = Field(description="The tasks that it was wanted for.")
    better_than: str = Field(description="The best adapter there by itself, or `base`.")
    lead: float = Field(description="By how much its mean score is better, on examples that chose nothing.")
    low: float = Field(description="The lower end of the lead's interval, which allows for all that were tried.")
    examples: int = Field(description="How many examples those were.")
    tried: int = Field(description="How many composites were tried.")

    @classmethod
    def of(cls, composite: Composite | None) -> Self | None:
        """What the profile keeps of a composite; None for other adapters."""
        if composite is None:
            return None
        recipe = composite.recipe
        parts = zip(recipe.parents, recipe.digests, recipe.weights, strict=True)
        return cls(
            parts=tuple(MergedPart(name=n, weights_digest=d, weight=w) for n, d, w in parts),
            method=recipe.method,
            rank=recipe.rank,
            density=recipe.density,
            seed=recipe.seed,
            tasks=composite.tasks,
            better_than=composite.single,
            lead=composite.lead,
            low=composite.low,
            examples=composite.examples,
            tried=composite.tried,
        )


class SkillTrait(_Answer):
    """How much of one component a skill supplies."""

    index: int = Field(description="The component's number, from 1.")
    name: str = Field(description="The component's name.")
    score: float = Field(description="The skill's trait score.")
    trait: bool = Field(description="Whether the component explains more variance than chance would.")


class SkillCard(_Answer):
    """All that is known of one skill."""

    name: str = Field(description="The skill's name, to be sent as `model`.")
    state: State = Field(description="`pending`: not measured yet, so never chosen for `auto`; `ready`: it may be.")
    tags: tuple[str, ...] = Field(description="The operator's tags, by which `constraints.tags` selects.")
    base_model: str = Field(description="The base model that it adapts.")
    base_digest: str = Field(description="SHA-256 of the base model's files.")
    weights_digest: str = Field(description="SHA-256 of the adapter's weights.")
    method: str = Field(description="The PEFT method, as in `lora`.")
    rank: int = Field(description="The rank of its matrices.")
    target_modules: tuple[str, ...] = Field(description="The modules of the base model that it adapts.")
    version: int = Field(description="Counts the weights that this name has had.")
    created_at: str = Field(description="When it was added, in ISO 8601.")
    uri: str | None = Field(description="Where the weights came from.")
    licence: str | None = Field(description="The licence of the weights.")
    source: SourceData | None = Field(description="The data that it was trained on, where that is known.")
    datasets: tuple[str, ...] = Field(default=(), description="Its training data by its model card, as ids of the Hub.")
    merged: Merging | None = Field(default=None, description="How it was merged of others; null where it was trained.")
    loaded: bool | None = Field(description="Whether the server has it loaded; null where the server cannot tell.")
    effect: float | None = _EFFECT
    applied: Applied | None = _APPLIED
    profile_version: int = Field(description="The version of the profile with these gains.")
    traits: tuple[SkillTrait, ...] = Field(description="How much of each component it supplies.")
    gains: tuple[MeasuredGain, ...] = Field(description="Its measured gains on all profiled tasks.")
    side_effects: tuple[MeasuredGain, ...] = Field(description="Tasks with a certain loss, the worst first.")
    everyday_loss: float | None = Field(
        default=None,
        description="What it loses against base on everyday requests, in score points; null where it was not measured.",
    )


class Loading(_Answer):
    """A component's weight on one task."""

    task: str = Field(description="The profiled task.")
    weight: float = Field(description="The loading.")
    low: float | None = Field(description="Lower end of its 95% bootstrap interval over examples, where there is one.")
    high: float | None = Field(description="Upper end of its 95% bootstrap interval over examples, where there is one.")


class Trait(_Answer):
    """A principal component of the gains; it is a trait if it explains more variance than chance would."""

    index: int = Field(description="The component's number, from 1.")
    name: str = Field(description="The owner's label, or the name found for it.")
    label: str | None = Field(description="The name that the registry's owner gave it.")
    evidence: str = Field(description="Why it has its name.")
    trait: bool = Field(description="Whether `variance` exceeds `null`.")
    variance: float = Field(description="The share of variance that it explains.")
    null: float = Field(description="The share that a component of permuted gains reaches in 5 of 100 cases.")
    p: float = Field(description="How often a component of permuted gains explains as much.")
    stability: float | None = Field(description="Median cosine with the same component of bootstraps over examples.")
    loadings: tuple[Loading, ...] = Field(description="Its weight on every profiled task.")


class TraitScores(_Answer):
    """Where a skill lies in trait space."""

    name: str = Field(description="The skill's name.")
    scores: tuple[float, ...] = Field(description="Its score on each component, in order.")


class TraitMap(PageOf):
    """Components of the gains, and where each skill lies, a page of skills at a time."""

    profile_version: int = Field(description="The version of the profile.")
    n_traits: int = Field(description="How many components the profile keeps, one at least.")
    traits: tuple[Trait, ...] = Field(description="The components, the one that explains most first.")
    skills: tuple[TraitScores, ...]


class Matrix(PageOf):
    """The transfer matrix, a page of rows at a time: rows are `skills`, columns are `tasks`."""

    profile_version: int = Field(description="The version of the profile.")
    tasks: tuple[str, ...] = Field(description="The columns.")
    scored_by: tuple[RoutingScore, ...] = Field(description=f"By column. {SCORED_BY}")
    skills: tuple[str, ...] = Field(description="The rows.")
    base: tuple[float, ...] = Field(description="The base model's mean score on each task.")
    scores: tuple[tuple[float, ...], ...] = Field(description="Each skill's mean score on each task.")
    gains: tuple[tuple[float, ...], ...] = Field(description="`scores` less `base`.")
    low: tuple[tuple[float | None, ...], ...] = Field(description="Lower ends of the gains' 95% intervals, or null.")
    high: tuple[tuple[float | None, ...], ...] = Field(description="Upper ends of the gains' 95% intervals, or null.")
    examples: tuple[tuple[int, ...], ...] = Field(description="How many examples were measured.")


class FeedbackRequest(_Request):
    """How a decision turned out: as a reward, as thumbs, or as better than another decision's answer."""

    decision: str = Field(min_length=1, max_length=512, description="The decision's token.")
    reward: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="1 for a good outcome, 0 for a bad one, or a value between. Give this, `thumbs` or `better_than`.",
    )
    thumbs: Literal["up", "down"] | None = Field(default=None, description="`up` is a reward of 1, `down` of 0.")
    better_than: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="The token of another decision, whose answer was worse: kept as 1 and 0, of source `comparison`.",
    )
    source: Literal["user", "checker", "judge"] = Field(
        default="user",
        description="Who says so: a user, a program that checked the answer, or a model that judged it. Each is heard "
        "once on a decision. A comparison has none.",
    )

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        given = {"reward", "thumbs", "better_than"} & self.model_fields_set
        if len(given) != 1 or getattr(self, *given) is None:
            raise ValueError('give one of "reward" (0 to 1), "thumbs" ("up" or "down") and "better_than" (a token)')
        if self.better_than is not None and "source" in self.model_fields_set:
            raise ValueError('a comparison is kept under a source of its own: leave "source" out')
        if self.better_than == self.decision:
            raise ValueError('"better_than" is the same decision: give the token of the other answer')
        return self

    @property
    def rewards(self) -> dict[str, tuple[str, float]]:
        """By field, the token there and the reward that its decision gets."""
        if self.better_than is not None:
            return {"decision": (self.decision, 1.0), "better_than": (self.better_than, 0.0)}
        return {"decision": (self.decision, float(self.thumbs == "up") if self.reward is None else self.reward)}


class FeedbackKept(_Answer):
    """The feedback was stored, without any text."""

    skill: str = Field(description="The skill that answered, or `base`.")
    profile_version: int = Field(description="The version of the profile that decided.")
    reward: float = Field(description="The reward that was stored.")
    source: FeedbackSource = Field(description="The source under which it was stored.")
