"""The metric `agreement`: whether an answer is what the others give, for tasks with short answers and no right ones.

Its scores are counted once base and all adapters have answered (matrix/votes.py); until then they are 0.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from ..scoring import Judgement, composed, plain
from .metric import Answer, Metric

if TYPE_CHECKING:
    from ..task import Task


class Agreement(Metric):
    """The share of the other answerers, base and adapters, whose answer is the same but for case and spaces.

    An empty answer agrees with none. That many agree does not make an answer right: adapters that were taught alike
    err alike.
    """

    family: ClassVar[str] = "agreement"
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ()
    by_votes: ClassVar[bool] = True
    without_answers: ClassVar[bool] = True
    name: str = "agreement"

    def compared(self, output: str) -> str:
        """The output in Unicode's composed form and one case, with single spaces."""
        return plain(composed(output))

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """Whether there is an answer; what it scores is not known yet."""
        return Judgement(strict=False, lenient=False, parse_failure=not self.compared(answer.output), metric_score=0.0)
