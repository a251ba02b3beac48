"""The metric `lm_eval`: what lm-evaluation-harness itself gives an output, for tasks whose rows come from it."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ....adapters import MetricError
from ..lm_eval import open_task
from ..scoring import Judgement
from .metric import Answer, Metric, graded, version_of

if TYPE_CHECKING:
    from ..task import Task


class LmEval(Metric):
    """The harness task's `metric` (its first one) after its `filter` (its first one), by the harness's own code.

    For tasks that generate; those that rank the likelihood of choices have none for a written answer. Filters are
    regular expressions of the task's author and run as the harness runs them.
    """

    family: ClassVar[str] = "free text"
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ()
    name: str = "lm_eval"
    metric: str | None = None
    filter: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The harness's own row."""
        return ("doc",)

    @property
    def rules(self) -> Any:
        """The settings, and the version of the harness."""
        return [self.setting, f"lm_eval {version_of('lm_eval')}"]

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """The score that the harness gives."""
        from ..sources import HarnessSource

        if not isinstance(task.rows, HarnessSource):
            raise MetricError('metric "lm_eval" is for tasks whose rows are {lm_eval: NAME}')
        harness = open_task(task.rows.lm_eval, task.rows.include_path)
        if harness.OUTPUT_TYPE != "generate_until":
            raise MetricError(
                f'the harness task {task.rows.lm_eval!r} is of type "{harness.OUTPUT_TYPE}", which ranks likelihoods '
                'and scores no written answer: use metric "label" or "choice"'
            )
        return graded(self._score(harness, self._filter(harness), answer), answer.output)

    def _filter(self, harness: Any) -> Any:
        known = {each.name: each for each in harness._filters}
        if self.filter is not None and self.filter not in known:
            raise MetricError(f"the harness task has no filter {self.filter!r}: it has {list(known)}")
        return known[self.filter] if self.filter is not None else harness._filters[0]

    def _score(self, harness: Any, chosen: Any, answer: Answer) -> float:
        from lm_eval.api.instance import Instance

        doc = answer.example.columns["doc"]
        request = Instance(request_type="generate_until", doc=doc, arguments=(), idx=0, resps=[answer.output])
        chosen.apply([request])
        scores = harness.process_results(doc, [request.filtered_resps[chosen.name]])
        name = self.metric or next(iter(scores))
        if name not in scores:
            raise MetricError(f"the harness task has no metric {name!r}: it has {sorted(scores)}")
        if not harness.higher_is_better().get(name, True):
            raise MetricError(f"the harness's metric {name!r} is best at its lowest: name another of {sorted(scores)}")
        try:
            return float(scores[name])
        except (TypeError, ValueError) as exc:
            raise MetricError(
                f"the harness's metric {name!r} is made of all rows together and gives none a score: "
                f"name another of {sorted(scores)}"
            ) from exc
