"""What a folder's rows say about their task: its labels, its metric, its prompt, and how long answers are."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from ...adapters import SuiteError
from .metrics import read_metric
from .scoring import bare_label, composed, judge, letters_apart
from .sources import FolderSource, Row, Split, check_labels
from .task import LISTED_LABELS, Task
from .text_files import explained

FREE_TEXT = 16
"""Targets of so many words, or letters where no spaces are put, in the median, are texts that nobody writes exactly."""


def infer_task(
    folder: Path,
    name: str,
    *,
    source: bool,
    train: int,
    test: int,
    prompt: str | None = None,
    splits: Sequence[Split] = ("train", "test"),
) -> Task:
    """Infer labels, metric, token limit and, unless it is given, the prompt of a task from the rows of `splits`."""
    rows = FolderSource(folder=folder)
    seen = [row for split in splits for row in rows.load(name, split, 10**6, seed=0)]
    if unlabelled := next((row for row in seen if "target" not in row), None):
        raise SuiteError(
            f'{unlabelled.where}: the row has no "target", so that nothing tells by what answers are judged: say it '
            'in a suite, with "target" and "metric" (format, agreement or judge)'
        )
    labels = _inferred_labels(seen, folder / name)
    ask = f"\nAnswer with one of: {', '.join(labels)}." if 0 < len(labels) <= LISTED_LABELS else ""
    metric = _inferred_metric(seen, labels)
    try:
        return Task(
            name=name,
            rows=rows,
            prompt="{{ input }}" + ask if prompt is None else prompt,
            labels=labels,
            metric=read_metric(metric),
            source=source,
            train=train,
            test=test,
            max_tokens=_max_tokens([r["target"] for r in seen], metric),
        )
    except ValidationError as exc:
        raise SuiteError(explained(exc, str(folder / name))) from exc


def _inferred_labels(rows: Sequence[Row], folder: Path) -> tuple[str, ...]:
    """The classes of a data set's rows; none where they are not classified.

    Raises:
        SuiteError: some rows lack a label, or labels are no names of classes, or not written alike.
    """
    labelled = [row for row in rows if "label" in row]
    check_labels(labelled)
    if labelled and len(labelled) < len(rows):
        lacking = next(row for row in rows if "label" not in row)
        raise SuiteError(
            f'{folder}: some rows lack "label" ({lacking.where} is the first); give one to every row, or to none'
        )
    labels: dict[str, str] = {}
    for row in labelled:
        label = composed(str(row["label"]).strip())
        if labels.setdefault(bare_label(label), label) != label:
            raise SuiteError(
                f"{row.where}: the label {label!r} is {labels[bare_label(label)]!r} to the judge, for whom case, last "
                "full stops and the width of characters do not count: write them alike"
            )
    return tuple(sorted(labels.values()))


def _max_tokens(targets: Sequence[str], metric: str) -> int:
    """Enough tokens for 95% of the targets, at three characters a token, a safe rule for English.

    Numbers get 96 at least: models reason before they answer, however short the gold answer is.
    """
    lengths = sorted(map(len, targets))
    room = 8 + lengths[int(0.95 * (len(lengths) - 1))] // 3
    return min(256, max(room, 96 if metric == "number" else 0))


def _inferred_metric(rows: Sequence[Row], labels: tuple[str, ...]) -> str:
    """How answers like those of `rows` are judged."""
    if labels:
        return "label"
    if all("#### " in r["target"] or _is_number(r.get("answer", "")) for r in rows):
        return "number"
    if all(_is_json_object(r["target"]) for r in rows):
        return "json"
    lengths = [sum(len(letters_apart(word)) for word in r["target"].split()) for r in rows]
    return "f1" if median(lengths) >= FREE_TEXT else "text"


def _is_number(answer: Any) -> bool:
    return judge("number", str(answer), str(answer)).lenient


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
