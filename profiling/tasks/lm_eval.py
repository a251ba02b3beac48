"""Rows of lm-evaluation-harness tasks, so that the harness's tasks can be columns of the matrix.

Used: the data set, `process_docs`, the description, `doc_to_text`, `doc_to_target` and `doc_to_choice`. Not used:
few-shot examples and stop strings; every task is asked zero-shot through the chat template, and judged by the metric
that our task names: filters and metrics of the harness are used where that is `lm_eval` (metrics/harness.py).

The harness ranks the likelihood of choices that the prompt need not show; our adapters must write the answer. So
choices that differ from row to row are listed in the input and answered by a letter.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from jinja2 import TemplateError

from ...adapters import SuiteError
from .text_files import check_yaml, read_text

Row = dict[str, Any]
_RENDERED = ("generate_until", "loglikelihood", "multiple_choice")


def harness_rows(name: str, split: Literal["train", "test"], *, include_path: Path | None = None) -> list[Row]:
    """Every row of a split of the harness task `name`: `input`, `target`, `doc`; with choices `label` and `choices`.

    "test" is the split that the harness evaluates on, which for many tasks is called validation. With
    choices that are the same in every row the label is the right choice itself, else its letter.
    `include_path` is a folder of task YAML files of your own; they may run code, as in the harness.

    Raises:
        SuiteError: there is no such task, its data cannot be loaded, or its rows are no text to answer.
        ImportError: the `lm-eval` extra is missing.
    """
    task = open_task(name, include_path)
    docs = _docs(task, split)
    if not docs:
        raise SuiteError(f'harness task {name!r} has no rows to {split} on: set "{split}: 0", or name another')
    rows: list[Row] = []
    try:
        shared = _shared_choices(task)
        rows.extend(_row(task, doc, shared=shared) for doc in docs)
    except (LookupError, SyntaxError, TemplateError, TypeError, ValueError) as exc:
        raise SuiteError(
            f"harness task {name!r}: {split} row {len(rows) + 1} cannot be read: {exc}; name another"
        ) from exc
    return rows


@lru_cache(maxsize=32)
def open_task(name: str, include_path: Path | None) -> Any:
    """The harness's task object, with its data loaded.

    Raises:
        SuiteError: there is no such task, or it cannot be used.
        ImportError: the `lm-eval` extra is missing.
    """
    manager = _find(name, include_path)
    from datasets.exceptions import DatasetsError

    try:
        (task,) = manager.load([name])["tasks"].values()
    except (DatasetsError, TemplateError, OSError, LookupError, ValueError, RuntimeError) as exc:
        reason = exc.__cause__ or exc
        raise SuiteError(
            f"harness task {name!r}: its data or its definition cannot be loaded "
            f"({type(reason).__name__}: {reason}); check the network, or give a local task with include_path"
        ) from exc
    if task.OUTPUT_TYPE not in _RENDERED or task.multiple_input or _beyond_text(task):
        raise SuiteError(
            f"harness task {name!r} ({task.OUTPUT_TYPE}) does not ask one text for one answer: its rows "
            "score whole texts, fill a gap or hold images or audio; name another"
        )
    return task


def _beyond_text(task: Any) -> bool:
    return bool(task.config.doc_to_image or task.config.doc_to_audio)


def _find(name: str, include_path: Path | None) -> Any:
    """The harness's index that holds `name`; its own 13,000 tasks are indexed only where needed."""
    if include_path is not None and not include_path.is_dir():
        raise SuiteError(f"include_path {include_path} is no folder: give one that holds task YAML files")
    # The harness passes over files that it cannot read.
    for file in sorted(include_path.rglob("*.yaml")) if include_path is not None else ():
        check_yaml(read_text(file), str(file))
    own = _index(include_path, defaults=False) if include_path is not None else None
    if own is not None and name in own.all_subtasks:
        return own
    manager = _index(include_path, defaults=True)
    if name in manager.all_subtasks:
        return manager
    if name in manager.all_tasks:
        members = ", ".join(sorted(n for n in manager.all_subtasks if n.startswith(name))[:8])
        raise SuiteError(f"{name!r} is a group of harness tasks: name one of them, such as {members}")
    yours = own.all_subtasks[:20] if own is not None else []
    near = [*yours, *get_close_matches(name, manager.all_subtasks, n=8, cutoff=0.5)]
    raise SuiteError(
        f"lm-evaluation-harness knows no task {name!r} among {len(manager.all_subtasks)}; "
        f"close to it or your own: {', '.join(dict.fromkeys(near)) or 'none'}"
    )


@lru_cache(maxsize=4)
def _index(include_path: Path | None, *, defaults: bool) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as exc:
        raise ImportError("lm-evaluation-harness tasks need the extra: pip install 'traitroute[lm-eval]'") from exc
    path = str(include_path) if include_path is not None else None
    return TaskManager(include_path=path, include_defaults=defaults)


def _docs(task: Any, split: Literal["train", "test"]) -> Sequence[Any]:
    if split == "train":
        return list(task.training_docs()) if task.has_training_docs() else []
    return list(task.eval_docs)


def _shared_choices(task: Any) -> bool:
    """Whether every row of both splits has the same choices."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return False
    if isinstance(task.config.doc_to_choice, list | dict):
        return True
    docs = [*_docs(task, "train"), *_docs(task, "test")]
    return len({tuple(task.doc_to_choice(doc)) for doc in docs}) == 1


def _row(task: Any, doc: Any, *, shared: bool) -> Row:
    text = _input(task, doc)
    target = task.doc_to_target(doc)
    if task.OUTPUT_TYPE != "multiple_choice":
        # Several right answers: the first is the one to learn.
        first = target[0] if isinstance(target, list) else target
        if first is None:
            raise ValueError("its answer is null")
        return {"input": text, "target": str(first).strip(), "doc": doc}
    choices = [str(choice).strip() for choice in task.doc_to_choice(doc)]
    gold = _gold(target, choices)
    if shared:
        return {"input": text, "target": choices[gold], "label": choices[gold], "choices": choices, "doc": doc}
    if len(choices) > len(ascii_uppercase):
        raise ValueError(f"{len(choices)} choices, and letters for {len(ascii_uppercase)}")
    letters = list(ascii_uppercase[: len(choices)])
    listed = "\n".join(f"{letter}. {c}" for letter, c in zip(letters, choices, strict=True))
    # The choices come before the place of the answer.
    question = text.removesuffix("Answer:").rstrip()
    ask = f"{question}\n{listed}\nAnswer with the letter of the right choice."
    return {"input": ask, "target": letters[gold], "label": letters[gold], "choices": letters, "doc": doc}


def _input(task: Any, doc: Any) -> str:
    description = task.resolve_field(doc, task.config.description) or ""
    parts = (str(description).strip(), str(task.doc_to_text(doc)).strip())
    return "\n\n".join(part for part in parts if part)


def _gold(target: Any, choices: Sequence[str]) -> int:
    """Index of the right choice; the harness gives it as index, as text, or as a list of either."""
    first = target[0] if isinstance(target, list) else target
    index = first if isinstance(first, int) else choices.index(str(first).strip())
    if not 0 <= index < len(choices):
        raise ValueError(f"the right choice is number {index} of {len(choices)}")
    return index
