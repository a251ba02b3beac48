"""What a metric is: settings that a suite gives, checked, and `judge`, which scores outputs by them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from ..scoring import Judgement

if TYPE_CHECKING:
    from ..task import Task


class Example(BaseModel):
    """One rendered row: the prompt sent, the answer trained on, and the answer looked for.

    `columns` are those columns of the row that the task's metric reads, as they are.
    """

    model_config = ConfigDict(frozen=True)

    prompt: str
    target: str
    answer: str
    columns: dict[str, Any] = {}

    @model_serializer(mode="wrap")
    def _without_empty_columns(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests of measured cells are made of these dumps, and are older than `columns`.
        return {key: value for key, value in dump(self).items() if key != "columns" or value}


@dataclass(frozen=True)
class Answer:
    """An output on an example; `base_output` is what the base model wrote there, where that is known."""

    output: str
    example: Example
    base_output: str | None = None


class Metric(BaseModel, ABC):
    """A way to score outputs, with its settings; an instance is what `metric:` of a task is read as.

    A suite gives a name (`metric: rouge_l`), or a name with settings (`metric: {name: regex, pattern: …}`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: ClassVar[str]
    """What answers are like, in the names of traits: "math", "free text", ..."""
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ("answer", "target")
    """Which texts of a row must be right, leniently, where they are given as outputs; checked as rows are read."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that are read beside its answer."""
        return ()

    @property
    def rules(self) -> Any:
        """Everything beside the row that determines a score, as JSON: settings, and versions where they matter."""
        return self.setting

    @property
    def setting(self) -> str | dict[str, Any]:
        """What a suite would say: the name alone where every setting has its default."""
        given = {n: v for n, v in self if v != type(self).model_fields[n].default}
        return {"name": self.name, **given} if given.keys() - {"name"} else self.name

    @abstractmethod
    def judge(self, answers: Sequence[Answer], task: "Task") -> list[Judgement]:
        """A judgement for each of `answers` to `task`, in their order."""

    @model_serializer(mode="plain")
    def _as_given(self) -> Any:
        return self.setting
