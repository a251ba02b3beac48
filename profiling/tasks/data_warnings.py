"""What of a task's rows makes its scores say less than they seem to: told before anything is trained or measured."""

from collections.abc import Iterator, Sequence

from .scoring import composed, judge
from .task import Task


def data_warnings(tasks: Sequence[Task]) -> list[str]:
    """A sentence, with its numbers, on each thing that is odd about the rows of `tasks`."""
    return [f"{task.name}: {said}" for task in tasks for said in _of_task(task)]


def _of_task(task: Task) -> Iterator[str]:
    tested = task.test_examples
    answers = {example.answer for example in tested}
    if len(tested) > 1 and len(answers) == 1:
        yield (
            f"all {len(tested)} test rows have one and the same answer, {next(iter(answers))[:80]!r}: whoever "
            "always says it scores 100%; give test rows of every kind"
        )
    if not task.source:
        return
    trained = {_plain(example.prompt) for example in task.training_examples}
    known = sum(_plain(example.prompt) in trained for example in tested)
    if known:
        yield (
            f"{known} of {len(tested)} test rows ({known / len(tested):.0%}) ask what a training row asks, but for "
            "case and spaces: its own adapter may know their answers by heart; take them out of one split"
        )
    judged = [judge(task.metric, e.target, e.answer, task.labels) for e in task.training_examples]
    loose = sum(not each.strict for each in judged)
    if loose:
        yield (
            f"{loose} of {len(judged)} training targets ({loose / len(judged):.0%}) hold the answer, and are not in the "
            f'form that the strict score of metric "{task.metric}" asks for: an adapter that writes them as taught is '
            "never strictly right; give the task another target template"
        )


def _plain(text: str) -> str:
    return " ".join(composed(text).casefold().split())
