"""Which rows fit: training rows in `max_length`, test rows with their answers in the base model's context.

TRL cuts a training row at `max_length` tokens, and silently drops it where nothing of its answer is left. Beyond its
context a model still answers, but wrongly. So both are counted beforehand, warned of, and refused where they are many.
"""

from collections.abc import Sequence
from typing import Any

from ..adapters import BaseModelError, SuiteError
from ..serving.engines.engine import PromptTokenizer
from .base_model import BaseModelFolder
from .matrix.measure import request_for
from .tasks.suite import Suite, Training
from .tasks.task import Example, Task, TrainingSet
from .training import longest_row, training_tokens


def fit_rows(suite: Suite, base: BaseModelFolder) -> tuple[Suite, list[str]]:
    """The suite without test rows that are too long for `base`, and warnings of these and of long training rows.

    Raises:
        SuiteError: too few rows would be left.
    """
    warnings = check_training(suite.training_sets(), base, suite.training)
    tasks, more = fit_tests(suite.tasks, base)
    if not more:
        return suite, warnings
    return suite.model_copy(update={"tasks": tasks}), [*warnings, *more]


def check_training(sets: Sequence[TrainingSet], base: BaseModelFolder, settings: Training) -> list[str]:
    """Warnings of training rows that are cut or dropped, since they are longer than `max_length`.

    Raises:
        SuiteError: fewer than half of a set's rows, or than a batch, would be left.
        BaseModelError: the base model has no chat template.
    """
    if not sets:
        return []
    tokenizer = PromptTokenizer(base.path).tokenizer
    if tokenizer.chat_template is None:
        raise BaseModelError(
            f"{base.name} has no chat template, in which training rows are written: choose a model that has "
            "learned to follow instructions"
        )
    warnings = (_training_warning(data, tokenizer, base, settings) for data in sets)
    return [warning for warning in warnings if warning]


def _training_warning(data: TrainingSet, tokenizer: Any, base: BaseModelFolder, settings: Training) -> str | None:
    limit = longest_row(settings, base)
    rows = [training_tokens(example, tokenizer, data.learn) for example in data.examples]
    long = [row for row in rows if row.length > limit]
    if not long:
        return None
    size, longest = len(rows), max(row.length for row in long)
    dropped = sum(row.first >= limit for row in long)
    most = min(longest, base.context or longest)
    cure = f"set training.max_length to {most} to keep them"
    if most < longest:
        cure = f"the base model's context is {most}: give shorter rows"
    said = (
        f"{data.name}: {len(long)} of {size} training rows ({len(long) / size:.0%}) are longer than "
        f"{limit} tokens, up to {longest}: {dropped} are left out, since nothing of their answer is "
        f"within, and {len(long) - dropped} are cut short; {cure}"
    )
    left = size - dropped
    if dropped and (2 * left < size or left < settings.batch_size):
        raise SuiteError(f"{said}; of so few rows, {left}, no adapter is trained")
    return said


def fit_tests(tasks: Sequence[Task], base: BaseModelFolder) -> tuple[tuple[Task, ...], list[str]]:
    """The tasks without test rows that exceed, with their answers, the context of `base`, and warnings of them.

    Raises:
        SuiteError: fewer than half of a task's test rows would be left.
    """
    if (context := base.context) is None:
        return tuple(tasks), []
    prompts, kept, warnings = PromptTokenizer(base.path), list[Task](), list[str]()
    for task in tasks:
        if any(_hides_tools(example, prompts) for example in task.test_examples):
            warnings.append(
                f"{task.name}: its rows have tools, and the chat template of {base.name} shows the model none: it "
                "cannot know what it may call; choose a base model that takes tools"
            )
        rooms = [prompts.tokenize(request_for(task, e, None)).room for e in task.test_examples]
        over = [place for place, tokens in enumerate(rooms) if tokens > context]
        if not over:
            kept.append(task)
            continue
        said = (
            f"{task.name}: {len(over)} of {len(rooms)} test rows ({len(over) / len(rooms):.0%}) take up to "
            f"{max(rooms)} tokens with their answers, more than the base model's context of {context}"
        )
        if 2 * len(over) > len(rooms):
            raise SuiteError(
                f"{said}: too few would be left; give shorter rows, a smaller max_tokens (now {task.max_tokens}), "
                "or a base model with a longer context"
            )
        warnings.append(f"{said}: they are left out")
        places = [i for i in range(len(rooms) + len(task.left_out)) if i not in task.left_out]
        left_out = sorted([*task.left_out, *(places[i] for i in over)])
        kept.append(Task.model_validate(task.model_dump() | {"left_out": left_out}))
    return tuple(kept), warnings


def _hides_tools(example: Example, prompts: PromptTokenizer) -> bool:
    """Whether a row's tools make no difference to what the model reads."""
    return bool(example.tools) and prompts.prompt(example.messages, example.tools) == prompts.prompt(example.messages)
