"""What the skills API takes and gives: the contract of HTTP, MCP and the page alike.

All gains are differences to the bare base model in score points of [-1, 1]; negative ones are side effects. `low` and
`high` bound 95% intervals of *measured* gains; those of *predicted* gains are the router's margin of error.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..constraints import Limits
from ..http.models import PageOf

MOST_STEPS = 100
MOST_SKILLS = 100
MOST_CHARACTERS = 100_000
"""So long a text may be that a skill is selected for; generating takes longer ones."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class SelectRequest(_Request):
    """A sub-task, as text or as the chat messages it would be asked with, and the limits to keep to."""

    task: Annotated[str | None, Field(description="The sub-task's text.")] = None
    messages: Annotated[
        list[dict[str, Any]] | None,
        Field(description="Chat messages, as for /v1/chat/completions; the first user turn is read."),
    ] = None
    tools: Annotated[
        list[dict[str, Any]] | None,
        Field(description="Tools, as for /v1/chat/completions; they do not change the selection."),
    ] = None
    constraints: Annotated[Limits, Field(description="Which skills may be selected.")] = Limits()
    k: Annotated[int, Field(ge=1, le=MOST_SKILLS, description="How many skills to rank.")] = 5

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.task is None) == (self.messages is None):
            raise ValueError('give either "task" (text) or "messages" (chat messages)')
        return self


class PlanRequest(_Request):
    """An agent's whole plan: its sub-tasks in the order in which they will run.

    `max_loss` is the predicted gain, summed over all steps, that may be given up to change skills less often.
    """

    steps: Annotated[list[SelectRequest], Field(min_length=1, max_length=MOST_STEPS)]
    max_loss: Annotated[float, Field(ge=0, le=MOST_STEPS)] = 0.0


class MeasuredGain(_Answer):
    """What a skill was measured to gain on a profiled task; without `low` and `high` where nobody knows how sure it is.

    Of a task that has more, `examples` may be a few from which the gain was estimated."""

    task: str
    score: float
    base: float
    gain: float
    low: float | None
    high: float | None
    examples: int


class RankedSkill(_Answer):
    """A skill, or `base`, in the ranking for one sub-task.

    `loaded` is null where the server cannot tell; `side_effects` are tasks on which the skill surely loses.
    """

    name: str
    gain: float
    low: float
    high: float
    loaded: bool | None
    side_effects: tuple[MeasuredGain, ...] = ()


class DemandedTrait(_Answer):
    """How much of a component the sub-task asks for; `trait` says whether the component exceeds the null."""

    index: int
    name: str
    demand: float
    trait: bool


class LikeTask(_Answer):
    """A profiled task that the sub-task resembles; `similarity` is a cosine in [-1, 1]."""

    task: str
    similarity: float


class Selection(_Answer):
    """The skill to use for a sub-task (`base`: none is sure to help), and why.

    `decision` is a token by which `POST /v1/feedback` is told how it went; null where there is none to give.
    """

    choice: str
    gain: float
    low: float
    high: float
    reason: str
    ranking: tuple[RankedSkill, ...]
    demand: tuple[DemandedTrait, ...]
    nearest_tasks: tuple[LikeTask, ...]
    profile_version: int
    decision: str | None = None


class PlannedStep(_Answer):
    """A step's selection, and the skill that the plan assigns to it at a loss of predicted gain.

    `decision` is the token of the assigned skill.
    """

    selection: Selection
    assigned: str
    gain: float
    loss: float
    decision: str | None = None


class Plan(_Answer):
    """The assignment with the fewest changes of skill within `max_loss`; `unplanned_switches` are those of the choices."""

    steps: tuple[PlannedStep, ...]
    switches: int
    unplanned_switches: int
    loss: float
    max_loss: float
    profile_version: int


class SkillSummary(_Answer):
    """One skill in the list; `best_tasks` are those with the highest measured gains."""

    name: str
    state: Literal["pending", "ready", "disabled"]
    source_task: str | None
    tags: tuple[str, ...]
    loaded: bool | None
    mean_gain: float | None
    best_tasks: tuple[MeasuredGain, ...]
    side_effects: tuple[MeasuredGain, ...]


class SkillList(PageOf):
    """The skills of this server, by name, a page at a time."""

    base_model: str
    profile_version: int
    skills: tuple[SkillSummary, ...]


class SourceData(_Answer):
    """What is known of the data a skill was trained on; `outputs` are the labels of a classification task."""

    task: str
    rows: int | None
    metric: str | None
    labels: tuple[str, ...]
    prompt: str | None


class SkillTrait(_Answer):
    """How much a skill supplies of a component."""

    index: int
    name: str
    score: float
    trait: bool


class SkillCard(_Answer):
    """All that is known of one skill; `gains` has every profiled task, `side_effects` those on which it surely loses."""

    name: str
    state: Literal["pending", "ready", "disabled"]
    tags: tuple[str, ...]
    base_model: str
    base_digest: str
    weights_digest: str
    method: str
    rank: int
    target_modules: tuple[str, ...]
    version: int
    created_at: str
    uri: str | None
    licence: str | None
    source: SourceData | None
    loaded: bool | None
    profile_version: int
    traits: tuple[SkillTrait, ...]
    gains: tuple[MeasuredGain, ...]
    side_effects: tuple[MeasuredGain, ...]


class Loading(_Answer):
    """A component's weight on a task; `low` and `high` bound 95% of bootstraps over examples, where there are."""

    task: str
    weight: float
    low: float | None
    high: float | None


class Trait(_Answer):
    """A component of the gains; it is a trait where its share of variance exceeds the permutation null.

    `stability` is the median cosine with the component of bootstraps over examples; `label` is the owner's own name.
    """

    index: int
    name: str
    label: str | None
    evidence: str
    trait: bool
    variance: float
    null: float
    p: float
    stability: float | None
    loadings: tuple[Loading, ...]


class TraitScores(_Answer):
    """Where a skill lies in trait space, one score a component."""

    name: str
    scores: tuple[float, ...]


class TraitMap(PageOf):
    """Components of the gains, and where each skill lies, a page of skills at a time."""

    profile_version: int
    n_traits: int
    traits: tuple[Trait, ...]
    skills: tuple[TraitScores, ...]


class Matrix(PageOf):
    """The transfer matrix, a page of rows at a time: rows are `skills`, columns `tasks`.

    `low` and `high` are null where they are not known."""

    profile_version: int
    tasks: tuple[str, ...]
    skills: tuple[str, ...]
    base: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    gains: tuple[tuple[float, ...], ...]
    low: tuple[tuple[float | None, ...], ...]
    high: tuple[tuple[float | None, ...], ...]
    examples: tuple[tuple[int, ...], ...]


class FeedbackRequest(_Request):
    """How a decision turned out: `reward` is 1 for a good outcome, 0 for a bad one, or between."""

    decision: Annotated[str, Field(min_length=1, max_length=255)]
    reward: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FeedbackKept(_Answer):
    """The feedback was stored: who answered, by which profile version. No text is kept."""

    skill: str
    profile_version: int
    reward: float
