"""The metrics that compare an output with one gold answer by a rule of ours; see the table of scoring.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ..scoring import Judgement, judge
from .metric import Answer, Metric

if TYPE_CHECKING:
    from ..task import Task


class _Rule(Metric):
    def judge(self, answers: Sequence[Answer], task: "Task") -> list[Judgement]:
        return [judge(self.name, a.output, a.example.answer, task.labels) for a in answers]


class Label(_Rule):
    """The class that is named first."""

    family: ClassVar[str] = "classification"
    name: Literal["label"] = "label"


class Number(_Rule):
    """The number after the last "####", or the last one."""

    family: ClassVar[str] = "math"
    name: Literal["number"] = "number"


class Exact(_Rule):
    """The answer as it is written."""

    family: ClassVar[str] = "exact answer"
    name: Literal["exact"] = "exact"


class Json(_Rule):
    """An equal JSON object."""

    family: ClassVar[str] = "json"
    name: Literal["json"] = "json"


class Text(_Rule):
    """Half of the words or more."""

    family: ClassVar[str] = "free text"
    name: Literal["text"] = "text"
