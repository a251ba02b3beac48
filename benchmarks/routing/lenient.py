"""Whether an answer holds the right one: the lenient score of data sets of short answers.

The metric `text` takes half of the words for right, brackets too: of "(A)", so does "(B)", and "It is the Seine." not
of "Seine". What counts here is the choice that is named first where the prompt lists choices; else the label that is
named first where the data set has labels; else the answer as words of their own, anywhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from traitroute.adapters import MetricError
from traitroute.profiling.tasks.metrics import Answer, Example
from traitroute.profiling.tasks.metrics.rules import Choice, Contains
from traitroute.profiling.tasks.scoring import judge

from .plan import Asked


def holds_answer(asked: Asked, outputs: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each of the `outputs` holds the right answer of its row, (rows,)."""
    rows = zip(asked.rows, asked.task.test_examples, outputs, strict=True)
    return np.array([_holds(output, example, asked, asked.answers[row["wording"]]) for row, example, output in rows])


def _holds(output: str, example: Example, asked: Asked, labels: Sequence[str]) -> bool:
    answer = Answer(output, example, None)
    try:
        return Choice().judge_one(answer, asked.task).lenient
    except MetricError:
        # The prompt lists no choices, or other things than the answer.
        pass
    if labels:
        return judge("label", output, example.answer, tuple(labels)).lenient
    found = Contains().judge_one(answer, asked.task)
    # A letter alone is one as it is written: "I" is a word too.
    return found.strict if len(example.answer) == 1 else found.lenient
