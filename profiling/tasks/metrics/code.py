"""The metric `code`: whether Python that a model wrote passes the tests of its row, run in a sandbox (sandbox.py)."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ....adapters import MetricError
from ..scoring import Judgement
from .metric import Answer, Example, Metric
from .sandbox import Limits, run_tests

if TYPE_CHECKING:
    from ..task import Task

LONGEST = 65_536
"""Characters of an output that are run."""
_FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)


class Code(Metric):
    """The tests in the row's column `tests` pass, after the code of the output and that in its column `setup`.

    strict: all pass (pass@1). lenient: at least half do. Parse failure: the output is no Python. The code is what is
    in the first fence, or the whole output. Tests may import what comes with Python, and nothing else.
    """

    family: ClassVar[str] = "code"
    # Tests take a twentieth of a second, too long for every row before a run.
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ()
    name: str = "code"
    tests: str = "tests"
    setup: str | None = None
    seconds: Annotated[int, Field(ge=1, le=60)] = 5
    megabytes: Annotated[int, Field(ge=64, le=8192)] = 512

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of tests, and of code that they need."""
        return (self.tests,) if self.setup is None else (self.tests, self.setup)

    def judge(self, answers: Sequence[Answer], task: "Task") -> list[Judgement]:
        """Run as many programs at a time as there are processors, up to eight."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda answer: self._named(answer, task), answers))

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """Run the tests of one row."""
        code, tests = _code(answer.output), _tests(answer.example, self.tests)
        setup = str(answer.example.columns[self.setup] or "") if self.setup else ""
        limits = Limits(self.seconds, self.megabytes * 2**20)
        ran = run_tests(f"{code}\n{setup}", tests, limits)
        share = ran.passed / len(tests)
        return Judgement(strict=share == 1, lenient=share >= 0.5, parse_failure=not ran.compiled or not code.strip())


def _code(output: str) -> str:
    fenced = _FENCE.search(output[:LONGEST])
    return fenced[1] if fenced else output[:LONGEST]


def _tests(example: Example, column: str) -> list[str]:
    given: Any = example.columns[column]
    tests = [given] if isinstance(given, str) else given
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        raise MetricError(f"the column {column!r} holds no tests, as text or as a list of texts: {str(given)[:80]!r}")
    return tests
