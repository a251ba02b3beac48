"""Where a task's rows come from: a built-in suite, a local folder, a Hub dataset, or lm-evaluation-harness."""

import csv
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ...adapters import Name, SuiteError
from ...router.everyday import EverydayRequest, everyday_requests
from .chat import Chat, read_chat
from .lm_eval import harness_rows
from .text_files import json_lines, numbered_lines

Split = Literal["train", "test"]
_LABEL_TYPES = {str: "text", bool: "true or false", int: "a whole number", float: "a decimal"}


class Row(dict[str, Any]):
    """A row's columns; `where` names its place in messages, file and line for instance.

    `chat` is the conversation that the columns `messages` and `tools` hold, where the row has no `input`.
    """

    def __init__(self, columns: Mapping[str, Any], where: str) -> None:
        super().__init__(columns)
        self.where = where
        self.chat: Chat | None = None

    def read_chat(self) -> None:
        """Read the conversation: its last user turn becomes the column `input`, its last answer `target`.

        Raises:
            SuiteError: it is none of texts in which a user asks for something.
        """
        if "input" in self or "messages" not in self:
            return
        self.chat = read_chat(self["messages"], self.get("tools"), self.where)
        self["input"] = self.chat.asked
        if self.chat.answer:
            self.setdefault("target", self.chat.answer)


class FolderSource(BaseModel):
    """Rows of `<folder>/<task>`: `{train,test}.{jsonl,parquet,csv}`, or a data set that `datasets` saved there.

    A file `<folder>/<task>.{jsonl,parquet,csv}` holds rows to be tested on, of a task that is not trained on.

    `dataset` names that subfolder where it is not the task's name: one data set may be asked in many ways.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    dataset: Name | None = None

    def load(self, task: str, split: Split, count: int, *, seed: int) -> list[Row]:
        """A seeded sample of `count` rows of the split, or all of them where it has fewer.

        Raises:
            SuiteError: folder, file or row is not as it should be.
        """
        return _sample(_folder_rows(self.folder, self.dataset or task, split), count, seed) if count else []


class BuiltInSource(BaseModel):
    """Rows that ship with TraitRoute, for the suite `built_in`: `suites/<built_in>/<task>/{train,test}.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    built_in: Name
    dataset: Name | None = None

    def load(self, task: str, split: Split, count: int, *, seed: int) -> list[Row]:
        """The first `count` rows of the split, whatever the seed, so that the rows after them are new to every profile.

        Raises:
            SuiteError: there is no such suite, or it has no rows for the task.
        """
        folder = Path(str(resources.files("traitroute.suites"))) / self.built_in
        return _folder_rows(folder, self.dataset or task, split)[:count]


class HubSource(BaseModel):
    """Rows of a dataset on the Hugging Face Hub: the names of its splits, and which rows to take.

    A split may be a slice (`train[:90%]`); `where` is a Jinja2 expression over a row's columns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str
    config: str | None = None
    revision: str | None = None
    splits: dict[Split, str] = {"train": "train", "test": "test"}
    where: str = "true"

    def load(self, task: str, split: Split, count: int, *, seed: int) -> list[Row]:
        """A seeded sample of `count` rows of the split.

        Raises:
            SuiteError: the dataset cannot be loaded.
            ImportError: the `profile` extra is missing.
        """
        try:
            from datasets import load_dataset
        except ImportError as exc:
            raise ImportError("Hub datasets need the extra: pip install 'traitroute[profile]'") from exc
        try:
            data = load_dataset(self.hub, self.config, revision=self.revision, split=self.splits[split])
        except (OSError, ValueError, RuntimeError) as exc:
            raise SuiteError(
                f"task {task}: the Hub dataset {self.hub!r} cannot be loaded: {exc}; "
                "check the id and the network, or use a local folder"
            ) from exc
        order = random.Random(seed).sample(range(len(data)), len(data))
        return self._chosen(task, split, data, order, count)

    def _chosen(self, task: str, split: Split, data: Any, order: Sequence[int], count: int) -> list[Row]:
        """The first `count` rows in `order` that fulfil `where`; large datasets are never read whole."""
        from jinja2 import TemplateError
        from jinja2.sandbox import SandboxedEnvironment

        try:
            wanted = SandboxedEnvironment().compile_expression(self.where)
            rows = (Row(data[i], f"{self.hub}, {self.splits[split]} row {i + 1}") for i in order)
            chosen = list(islice((row for row in rows if wanted(**row)), count))
        except (TemplateError, TypeError, ValueError) as exc:
            raise SuiteError(
                f'task {task}: "where" ({self.where}) failed: {exc}; '
                f"it is a Jinja2 expression over the columns {sorted(data.column_names)}"
            ) from exc
        if count and not chosen:
            raise SuiteError(f'task {task}: no row of {self.hub}, {self.splits[split]} fulfils "where" ({self.where})')
        self._check_labelled(chosen, data)
        return chosen

    def _check_labelled(self, rows: Sequence[Row], data: Any) -> None:
        """Refuse rows without a class, which the Hub gives as -1: as an index it would be the last label."""
        from datasets import ClassLabel

        for column, kind in data.features.items():
            nameless = next((row for row in rows if row[column] == -1), None)
            if isinstance(kind, ClassLabel) and nameless is not None:
                raise SuiteError(
                    f'{nameless.where}: its "{column}" is -1, which says that it has no class: leave such '
                    f'rows out with where: "{column} >= 0"'
                )


class HarnessSource(BaseModel):
    """Rows of the lm-evaluation-harness task `lm_eval`; see lm_eval.py for what of it is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lm_eval: str
    include_path: Path | None = None

    def load(self, task: str, split: Split, count: int, *, seed: int) -> list[Row]:
        """A seeded sample of `count` rows of the split.

        Raises:
            SuiteError: there is no such harness task, or its data cannot be loaded.
            ImportError: the `lm-eval` extra is missing.
        """
        if count == 0:
            return []
        rows = harness_rows(self.lm_eval, split, include_path=self.include_path)
        where = f"harness task {self.lm_eval}, {split} row"
        return _sample([Row(row, f"{where} {i}") for i, row in enumerate(rows, start=1)], count, seed)


class EverydayRows(BaseModel):
    """The everyday requests that ship with the router, those of each sort by turns; there are none to train on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    everyday: Literal[True] = True

    def load(self, task: str, split: Split, count: int, *, seed: int) -> list[Row]:
        """The first `count` rows: a request, and words of which one is in any right answer."""
        if split == "train":
            return []
        by_sort: dict[str, list[EverydayRequest]] = {}
        for each in everyday_requests():
            by_sort.setdefault(each.sort, []).append(each)
        mixed = islice((each for turn in zip(*by_sort.values(), strict=False) for each in turn), count)
        return [
            Row({"input": e.text, "target": e.accepted[0], "accepted": list(e.accepted)}, f"everyday request {i}")
            for i, e in enumerate(mixed, start=1)
        ]


Source = BuiltInSource | FolderSource | HubSource | HarnessSource | EverydayRows


def check_labels(rows: Sequence[Row]) -> None:
    """Check that the labels of a data set name classes, and are written alike, so that 1 and 1.0 are not two classes.

    Raises:
        SuiteError: one is no text, number or true or false, or they are of several kinds.
    """
    labelled = [row for row in rows if "label" in row]
    for row in labelled:
        label, first = row["label"], labelled[0]["label"]
        if type(label) not in _LABEL_TYPES or (isinstance(label, float) and not math.isfinite(label)):
            raise SuiteError(
                f"{row.where}: the label is {str(label)[:80]}, which names no class: give text, or leave "
                '"label" out of every row'
            )
        if type(label) is not type(first):
            raise SuiteError(
                f"{row.where}: the label {label!r} is {_LABEL_TYPES[type(label)]}, and {first!r} in "
                f"{labelled[0].where} is {_LABEL_TYPES[type(first)]}: write all labels of a data set alike"
            )


def split_file(parent: Path, name: str, split: Split) -> Path | None:
    """Where a task's rows lie: `<parent>/<task>/<split>.jsonl` and the like, or `<parent>/<task>.jsonl` for "test"."""
    folder = parent / name
    places = [folder / f"{split}{end}" for end in _READERS]
    if split == "test" and not folder.is_dir():
        places = [parent / f"{name}{end}" for end in _READERS if end]
    return next((place for place in places if place.exists()), None)


def tested_tasks(folder: Path) -> list[str]:
    """The names of the tasks in a folder that have rows to be tested on."""
    entries = (e for e in folder.iterdir() if not e.name.startswith("."))
    names = {e.name if e.is_dir() else e.stem for e in entries if e.is_dir() or e.suffix in _READERS}
    return sorted(name for name in names if split_file(folder, name, "test") is not None)


def file_rows(file: Path) -> Iterator[Row]:
    """The rows of a file of any kind that is read.

    Raises:
        SuiteError: it is of no such kind, cannot be read, or holds what is no row.
    """
    if file.suffix not in _READERS:
        kinds = ", ".join(filter(None, _READERS))
        raise SuiteError(f"{file} is no file of rows: its name ends in none of {kinds}")
    return _READERS[file.suffix](file)


def _folder_rows(parent: Path, name: str, split: Split) -> list[Row]:
    folder = parent / name
    file = split_file(parent, name, split)
    if file is None and not folder.is_dir():
        known = sorted(p.name for p in parent.glob("*") if p.is_dir())
        raise SuiteError(f"{parent} has no task folder {name!r}; it has {known or 'none'}")
    if file is None:
        raise SuiteError(
            f"{folder} has neither {split}.jsonl nor {split}.parquet, nor {split}.csv, nor a folder {split} that "
            "datasets saved"
        )
    rows = list(file_rows(file))
    if not rows:
        raise SuiteError(f"{file} holds no rows")
    check_labels(rows)
    return rows


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a JSONL file.

    Raises:
        SuiteError: it cannot be read, or a line is no row.
    """
    for where, row in json_lines(file):
        if not isinstance(row, dict):
            raise SuiteError(f"{where}: a row must be a JSON object")
        yield _checked(Row(row, where))


def _parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as exc:
        raise ImportError("Parquet rows need the extra: pip install 'traitroute[profile]'") from exc
    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowException, UnicodeDecodeError, OSError) as exc:
        raise SuiteError(f"{file} is not Parquet: {exc}") from exc
    for number, row in enumerate(rows, start=1):
        yield _checked(Row(row, f"{file}, row {number}"))


def _csv(file: Path) -> Iterator[Row]:
    lines = (text for _, text in numbered_lines(file))
    reader = csv.DictReader(lines, strict=True)
    try:
        for columns in reader:
            where = f"{file}, line {reader.line_num}"
            if None in columns or None in columns.values():
                names = reader.fieldnames or []
                raise SuiteError(f"{where}: not as many cells as the {len(names)} columns of the first line: {names}")
            yield _checked(Row(columns, where))
    except csv.Error as exc:
        raise SuiteError(
            f"{file}, line {reader.line_num}: not CSV with commas: {exc}; rows of long texts are better given as JSONL"
        ) from exc


def _saved(folder: Path) -> Iterator[Row]:
    """The rows of a split that `datasets` saved: Arrow files, read as they are; no script of theirs is run."""
    try:
        from datasets import ClassLabel, Dataset
        from pyarrow import ArrowException
    except ImportError as exc:
        raise ImportError("saved data sets need the extra: pip install 'traitroute[profile]'") from exc
    try:
        data = Dataset.load_from_disk(str(folder))
        # As Arrow: nothing is decoded, images for instance.
        rows = data.with_format("arrow")[:].to_pylist()
    except (ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SuiteError(f"{folder} holds no data set that datasets saved (save_to_disk): {exc}") from exc
    classes = {name: kind for name, kind in data.features.items() if isinstance(kind, ClassLabel)}
    for number, row in enumerate(rows, start=1):
        where = f"{folder}, row {number}"
        for name, kind in classes.items():
            if row[name] is None or row[name] < 0:
                raise SuiteError(f'{where}: its "{name}" is {row[name]}, which says that it has no class: leave it out')
            row[name] = kind.int2str(row[name])
        yield _checked(Row(row, where))


def _checked(row: Row) -> Row:
    row.read_chat()
    # What a log holds may have no answer; a task's templates say what they need.
    for column in ("input",) if row.chat else ("input", "target"):
        if not isinstance(row.get(column), str):
            raise SuiteError(f'{row.where}: the row needs "{column}" as text; it has {sorted(row)}')
    return row


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": read_rows,
    ".parquet": _parquet,
    ".csv": _csv,
    "": _saved,
}


def _sample(rows: list[Row], count: int, seed: int) -> list[Row]:
    if count >= len(rows):
        return rows
    return random.Random(seed).sample(rows, count)
