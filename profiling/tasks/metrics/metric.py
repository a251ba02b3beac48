"""What a metric is: settings that a suite gives, checked, and `judge`, which scores outputs by them."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from ....adapters import MetricError
from ....router.request import request_text
from ..scoring import Judgement

if TYPE_CHECKING:
    from ..task import Task

_ROUNDING = 1e-9


class Example(BaseModel):
    """One rendered row: the prompt sent, the answer trained on, and the answer looked for.

    `columns` are those columns of the row that the task's metric reads, as they are. `chat` is the whole conversation
    where the row is one, whose last user turn is the prompt, and `tools` what it may call. `shots` are prompts and
    answers that are shown before the prompt.
    """

    model_config = ConfigDict(frozen=True)

    prompt: str
    target: str
    answer: str
    columns: dict[str, Any] = {}
    chat: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    shots: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> tuple[dict[str, Any], ...]:
        """What is sent: the chat or the prompt, with the shots as earlier turns behind its system prompt.

        Chat models have learned from turns where one answer ends and the next question begins. The router reads the
        first user turn of a request, and so reads one question of the task's wording, not all of them in a row.
        """
        turns = self.chat or ({"role": "user", "content": self.prompt},)
        if not self.shots:
            return turns
        start = next(i for i, turn in enumerate(turns) if turn["role"] != "system")
        shown = ([_turn("user", asked), _turn("assistant", said)] for asked, said in self.shots)
        return (*turns[:start], *chain.from_iterable(shown), *turns[start:])

    @property
    def routed(self) -> str:
        """The text by which a server routes such a request: of a chat, the first user turn that says something."""
        return request_text({"messages": list(self.chat)}) if self.chat else self.prompt

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests of measured cells are made of these dumps, and are older than some fields.
        return {key: value for key, value in dump(self).items() if key in ("prompt", "target", "answer") or value}


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


@dataclass(frozen=True)
class Answer:
    """An output on an example; `base_output` is what the base model wrote there, where that is known."""

    output: str
    example: Example
    base_output: str | None = None


def graded(score: float, output: str) -> Judgement:
    """The judgement that a number gives: strictly right at 1, leniently from a half, not parsed where it is empty."""
    return Judgement(
        strict=score >= 1 - _ROUNDING, lenient=score >= 0.5, parse_failure=not output.strip(), metric_score=score
    )


def version_of(package: str) -> str:
    """The installed version of a library that a score depends on.

    Raises:
        ImportError: it is missing.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as exc:
        raise missing(package) from exc


def missing(package: str) -> ImportError:
    """The error that a metric raises whose library is not installed."""
    return ImportError(f"this metric needs {package}: pip install 'traitroute[metrics]'")


def said(exc: BaseException) -> str:
    """An error in one line."""
    return f"{type(exc).__name__}: {exc}"


class Metric(BaseModel):
    """A way to score outputs, with its settings; an instance is what `metric:` of a task is read as.

    A suite gives a name (`metric: rouge_l`), or a name with settings (`metric: {name: regex, pattern: …}`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: ClassVar[str]
    """What answers are like, in the names of traits: "math", "free text", ..."""
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ("answer", "target")
    """Which texts of a row must be right, leniently, where they are given as outputs; checked as rows are read."""

    against_base: ClassVar[bool] = False
    """Whether an output is compared with what the base model wrote, which is then kept."""
    by_votes: ClassVar[bool] = False
    """Whether an output is scored by what base and the other adapters wrote, once all have; see matrix/votes.py."""
    without_answers: ClassVar[bool] = False
    """Whether scores have nothing to do with the answers of rows."""

    name: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of a row that are read beside its answer."""
        return ()

    @property
    def rules(self) -> Any:
        """Everything beside the row that determines a score, as JSON: settings, and versions where they matter."""
        return self.setting

    @property
    def setting(self) -> str | dict[str, Any]:
        """What a suite would say: the name alone where every setting has its default."""
        fields = type(self).model_fields
        given = {fields[n].alias or n: v for n, v in self if n in fields and v != fields[n].default}
        given |= self.model_extra or {}
        return {"name": self.name, **given} if given.keys() - {"name"} else self.name

    def compared(self, output: str) -> str:
        """What of an output shows whether two answer alike."""
        return output

    def check(self, example: Example) -> None:
        """Check, before anything is measured, that what the metric asks elsewhere is there.

        Raises:
            MetricError: it is not.
        """

    def judge(self, answers: Sequence[Answer], task: "Task") -> list[Judgement]:
        """A judgement for each of `answers` to `task`, in their order; one by one unless a metric needs many at once.

        Raises:
            MetricError: it cannot be used here, or failed on an example.
            ImportError: its library is missing.
        """
        return [self._named(answer, task) for answer in answers]

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """The judgement of one answer, for metrics that do not replace `judge`."""
        raise NotImplementedError

    def _named(self, answer: Answer, task: "Task") -> Judgement:
        """The judgement of one answer; an error names the example."""
        try:
            return self.judge_one(answer, task)
        except ImportError:
            raise
        except Exception as exc:
            reason = str(exc) if isinstance(exc, MetricError) else f"it raised {said(exc)}"
            raise MetricError(f"{reason} (example: {answer.example.prompt[:80]!r})") from exc

    @model_serializer(mode="plain")
    def _as_given(self) -> Any:
        return self.setting
