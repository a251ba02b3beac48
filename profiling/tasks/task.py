"""A task: one dataset as a source of training rows and as a target to measure on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta
from jinja2.sandbox import SandboxedEnvironment
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ...adapters import MetricError, Name, Outcomes, RoutingScore, SuiteError
from .metrics import Answer, AnyMetric, Example
from .metrics.rules import Exact
from .scoring import Judgement, bare_label, composed, example_scores
from .sources import Row, Source

LISTED_LABELS = 10
"""Up to so many labels are listed in the default prompt and get a probability each."""

ANSWER = "{{ answer if answer is defined else (label if label is defined else target) }}"
"""What a row's right answer is, where a task does not say otherwise."""

_TEMPLATES = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)


@lru_cache(maxsize=1024)
def _template(text: str) -> Template:
    return _TEMPLATES.from_string(text)


@lru_cache(maxsize=1024)
def _columns_of(template: str) -> set[str]:
    return meta.find_undeclared_variables(_TEMPLATES.parse(template))


@dataclass(frozen=True)
class TrainingSet:
    """What an adapter named `name` is trained on; `learn="stop"` puts loss on the end of the turn alone.

    `seed` is that of its training, where it is not the suite's.
    """

    name: str
    examples: tuple[Example, ...]
    learn: Literal["answer", "stop"] = "answer"
    seed: int | None = None


class Task(BaseModel):
    """One dataset: where rows come from, how they are asked and answered, and how answers are judged.

    `prompt` and `target` are Jinja2 templates over a row's columns. `source: true` trains an adapter
    on the task; every task is measured. `train` and `test` are numbers of rows. `left_out` are indices of
    test rows that are not measured: profiling adds those that are too long for the base model. `shots` are
    so many training rows that are shown before every test row, as earlier turns. A row with the columns `messages` and
    `tools` and no `input` is a chat: its last user turn is `input`, and is sent as `prompt` makes it.

    `score` is what gains are of, and so what routes: `metric`, what the metric gives an answer, in [0, 1]; `strict`,
    whether it is right as asked for; or `lenient`, whether the right answer is in it. `metric` is the default, since
    the other two put every answer of a graded metric on one of two sides. A metric that only tells right from wrong
    gives what is strict: the form that was asked for counts, as programs read the answers. Where people read them,
    `lenient` is fairer to a base model that is right in many words. Every cell holds all three, so another choice
    measures nothing again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    rows: Source
    prompt: str = "{{ input }}"
    target: str = "{{ target }}"
    answer: str = ANSWER
    labels: tuple[Annotated[str, AfterValidator(composed)], ...] = ()
    metric: AnyMetric = Exact()
    score: RoutingScore = "metric"
    source: bool = False
    train: Annotated[int, Field(ge=0)] = 200
    test: Annotated[int, Field(ge=1)] = 100
    shots: Annotated[int, Field(ge=0, le=64)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    seed: int = 0
    left_out: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Task":
        if self.metric.name == "label" and not self.labels:
            raise ValueError('metric "label" needs the list of labels')
        if len(set(self.labels)) == 1:
            raise ValueError(
                f"there is one class only, {self.labels[0]!r}: every answer would be right; "
                "give rows of at least two classes, or another metric"
            )
        seen: dict[str, str] = {}
        for label in self.labels:
            if not (bare := bare_label(label)):
                raise ValueError(f"the label {label!r} has nothing that an answer could name")
            if bare in seen:
                raise ValueError(
                    f"the labels {seen[bare]!r} and {label!r} are one to the judge, for whom case, last full "
                    "stops and the width of characters do not count: write them alike"
                )
            seen[bare] = label
        if self.source and not self.train:
            raise ValueError('a source task needs training rows: set "train" above 0')
        if self.source and self.metric.by_votes:
            raise ValueError(
                f'metric "{self.metric.name}" is for tasks without right answers, and a source has the answers that an '
                "adapter is trained on: name a metric that reads them, such as text"
            )
        for template in (self.prompt, self.target, self.answer):
            try:
                _template(template)
            except TemplateError as exc:
                raise ValueError(f"template {template!r} is not valid Jinja2: {exc}") from exc
        return self

    @cached_property
    def training_examples(self) -> list[Example]:
        """The rows an adapter is trained on, rendered."""
        examples = self.examples("train", self.train)
        if self.labels and len({e.answer for e in examples}) == 1:
            raise SuiteError(
                f"task {self.name}: all {len(examples)} training rows are of one class, "
                f"{examples[0].answer!r}; an adapter would learn that word and nothing else: "
                "give rows of at least two classes"
            )
        return examples

    @property
    def training_set(self) -> TrainingSet:
        """The rows an adapter named after the task is trained on."""
        return TrainingSet(self.name, tuple(self.training_examples))

    @cached_property
    def test_examples(self) -> list[Example]:
        """The rows every adapter is measured on, rendered."""
        rows = self.examples("test", self.test)
        shots = {"shots": self._shots(rows)} if self.shots else {}
        return [row.model_copy(update=shots) for place, row in enumerate(rows) if place not in self.left_out]

    def _shots(self, tested: Sequence[Example]) -> tuple[tuple[str, str], ...]:
        """Prompts and answers of training rows, a seeded draw without those that ask what a test row asks."""
        asked = {folded(example.prompt) for example in tested}
        # More than are needed, since some may be test rows too.
        drawn = {folded(e.prompt): (e.prompt, e.target) for e in self.examples("train", 4 * self.shots + 16)}
        shots = [shot for prompt, shot in drawn.items() if prompt not in asked][: self.shots]
        if len(shots) < self.shots:
            raise SuiteError(
                f"task {self.name}: {self.shots} shots are wanted, and {len(shots)} of the training rows looked at ask "
                'what no test row asks: set a smaller "shots", or give more training rows'
            )
        return tuple(shots)

    @property
    def lists_labels(self) -> bool:
        """Whether the labels are few enough to be listed in a prompt, and measured one by one."""
        return len(self.labels) <= LISTED_LABELS

    @property
    def digest(self) -> str:
        """Digest of everything that determines a measurement on this task: rendered examples and rules."""
        rules = [self.metric.rules, self.labels, self.max_tokens]
        examples = [e.model_dump() for e in self.test_examples]
        return hashlib.sha256(json.dumps([rules, examples]).encode()).hexdigest()

    def judge(
        self, outputs: Sequence[str], examples: Sequence[Example], base_outputs: Sequence[str] | None = None
    ) -> list[Judgement]:
        """Score `outputs` on `examples` by the task's metric; `base_outputs` are what the base model wrote there.

        Raises:
            MetricError: the metric cannot be used here, failed, or gave what is no score from 0 to 1.
            ImportError: the library that the metric needs is missing.
        """
        of_base = [None] * len(outputs) if base_outputs is None else base_outputs
        answers = [Answer(*each) for each in zip(outputs, examples, of_base, strict=True)]
        with self._named_errors():
            judged = self.metric.judge(answers, self)
            for judgement, example in zip(judged, examples, strict=True):
                if not 0 <= judgement.score <= 1:
                    score = judgement.score
                    raise MetricError(f"it gave {score}, and a score is from 0 to 1 (example: {example.prompt[:80]!r})")
        return judged

    def check_metric(self) -> None:
        """Check, before anything is measured, that what the metric asks elsewhere is there, such as a judge.

        Raises:
            MetricError: it is not.
        """
        with self._named_errors():
            self.metric.check(self.test_examples[0])

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except MetricError as exc:
            raise MetricError(f'task {self.name}, metric "{self.metric.name}": {exc}') from exc

    def scores(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """The score of every example that the task is routed by, (n,), in [0, 1]."""
        return example_scores(outcomes, self.score)

    def examples(self, split: Literal["train", "test"], count: int) -> list[Example]:
        """Up to `count` rendered rows of a split, a seeded sample where it has more.

        Raises:
            SuiteError: the rows, labels or templates are not as they should be.
        """
        rows = self.rows.load(self.name, split, count, seed=self.seed)
        return [self._checked(self._example(row), row.where) for row in rows]

    def _checked(self, example: Example, where: str) -> Example:
        answer = example.answer
        if self.labels and answer not in self.labels:
            raise SuiteError(
                f"task {self.name}: {where} is labelled {answer!r}, which is not among the labels {list(self.labels)}"
            )
        if "answer" in self.metric.must_pass and not self._passes(answer, example):
            raise SuiteError(
                f"task {self.name}: {where}: no output can match the answer {answer[:80]!r} by the "
                f'metric "{self.metric.name}"; choose another metric, or an "answer" template that fits it'
            )
        # A task that is only measured may ask for something else than its rows' targets.
        teaches = "target" in self.metric.must_pass and (self.source or self.answer == ANSWER)
        if teaches and not self._passes(example.target, example):
            raise SuiteError(
                f"task {self.name}: {where}: the target {example.target[:80]!r} is wrong by the answer "
                f"{answer[:80]!r}: an adapter would be trained on one and judged by the other; make them agree "
                'in the row, or by the task\'s "target" and "answer" templates'
            )
        return example

    def _passes(self, output: str, example: Example) -> bool:
        return self.judge([output], [example])[0].lenient

    def _example(self, row: Row) -> Example:
        asks_input = "input" in _columns_of(self.prompt)
        if asks_input:
            row.read_chat()

        def render(name: str) -> str:
            template = getattr(self, name)
            try:
                text = _template(template).render(row).strip()
                text.encode()
                return text
            except UndefinedError as exc:
                raise SuiteError(
                    f"task {self.name}: the {name} template {template!r} asks for what {row.where} "
                    f"lacks: {exc.message}; the row's columns are {sorted(row)}"
                ) from exc
            except (TemplateError, TypeError, ValueError, ArithmeticError) as exc:
                raise SuiteError(f"task {self.name}: the {name} template failed on {row.where}: {exc}") from exc

        prompt, target, answer = map(render, ("prompt", "target", "answer"))
        chat = row.chat if asks_input else None
        return Example(
            prompt=prompt,
            target=target,
            answer=composed(answer) if self.labels else answer,
            columns={column: self._column(row, column) for column in self.metric.reads},
            chat=chat.asking(prompt) if chat else (),
            tools=chat.tools if chat else (),
        )

    def _column(self, row: Row, column: str) -> Any:
        try:
            return json.loads(json.dumps(row[column]))
        except (KeyError, TypeError, ValueError) as exc:
            reason = f"its columns are {sorted(row)}" if column not in row else f"there it is no JSON: {exc}"
            raise SuiteError(
                f'task {self.name}: metric "{self.metric.name}" reads the column {column!r} of {row.where}: {reason}'
            ) from exc


def routing_scores(tasks: Iterable[Task]) -> dict[str, RoutingScore]:
    """What each task is routed by, by its name."""
    return {task.name: task.score for task in tasks}


def check_distinct(tasks: Iterable[Task], *, beside: Iterable[Task] = ()) -> None:
    """Check that no task asks and judges what another does, or one `beside` them.

    Raises:
        SuiteError: one does; a cell is kept by what was measured, and so theirs would be one another's.
    """
    names = {task.digest: task.name for task in beside}
    for task in tasks:
        twin = names.setdefault(task.digest, task.name)
        if twin != task.name:
            raise SuiteError(
                f"tasks {twin} and {task.name} have the same rows, prompt, token limit and metric, so what is measured "
                'of one is the other\'s: leave one out, or change one of these; "score" alone makes no other task, as '
                "every cell holds all three"
            )


def data_warnings(tasks: Sequence[Task]) -> list[str]:
    """Warnings, before anything is trained or measured, where rows make a task's scores mean less than they seem to.

    Raises:
        SuiteError: rows are not as they should be.
        MetricError: a metric cannot be used on this machine, or fails on a row; or a judge is away.
        ImportError: the library that a metric needs is missing.
    """
    warnings = [f"{task.name}: {warning}" for task in tasks for warning in _warnings_of(task)]
    # One task of each metric: many may go to one judge.
    for task in {json.dumps(task.metric.setting): task for task in reversed(tasks)}.values():
        task.check_metric()
    return warnings


def _warnings_of(task: Task) -> Iterator[str]:
    tested = task.test_examples
    answers = {example.answer for example in tested}
    if answers == {""} or task.metric.without_answers:
        yield (
            f'it is measured without right answers: metric "{task.metric.name}" says less than whether an answer is '
            "right, and so do gains and routing by it"
        )
    elif len(tested) > 1 and len(answers) == 1:
        yield (
            f"all {len(tested)} test rows have one and the same answer, {next(iter(answers))[:80]!r}: an adapter "
            "that always gives it scores 100%; give test rows of every kind"
        )
    # What a metric lacks, a library or a sandbox, is said before anything is trained.
    task.judge([tested[0].target], tested[:1])
    if not task.source:
        return
    trained = {_asked(example) for example in task.training_examples}
    known = sum(_asked(example) in trained for example in tested)
    if known:
        yield (
            f"{known} of {len(tested)} test rows ({known / len(tested):.0%}) ask what a training row asks, but for "
            "case and spaces: its own adapter may have memorised their answers; take them out of one split"
        )
    if not task.metric.must_pass:
        return
    judged = task.judge([e.target for e in task.training_examples], task.training_examples)
    loose = sum(not each.strict for each in judged)
    if loose and task.score != "lenient":
        yield (
            f"{loose} of {len(judged)} training targets ({loose / len(judged):.0%}) hold the answer, and are not in "
            f'the form that the strict score of metric "{task.metric.name}" asks for: an adapter that writes them as '
            "taught is never strictly right; give the task another target template"
        )


def _asked(example: Example) -> str:
    """What a row asks, written alike for rows that differ in case and spaces only."""
    return folded(json.dumps(example.chat) if example.chat else example.prompt)


def folded(text: str) -> str:
    """The text in one case, with single spaces."""
    return " ".join(composed(text).casefold().split())
