"""What the routing benchmark measures: the data sets, in which words they are asked, and where each cell is kept.

`routing/measure.yaml` says what is asked, or another file like it. Rows come from folders of
<data set>/{train,test}.jsonl. Where the META.json lists `templates`, rows are whole prompts as people wrote them, in
several wordings; the other data sets are tasks of the suite `paper-local`, and are asked in its words and in those of
the plan.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from traitroute.adapters import InputError, Outcomes
from traitroute.profiling import Task, load_suite
from traitroute.profiling.tasks.metrics import Example
from traitroute.profiling.tasks.suite import Training, folder_suite
from traitroute.profiling.tasks.task import LISTED_LABELS, TrainingSet

Kind = Literal["main", "tools", "turns", "long"]
AGENT_KINDS: tuple[Kind, ...] = ("tools", "turns", "long")
Row = dict[str, Any]
SHORT = ("label", "choice", "span", "short")
"""Kinds of answers, of a META.json, that a longer answer may hold."""
MEASURE = Path(__file__).with_name("measure.yaml")
"""The plan of the committed table of SmolLM2."""
ROWS = 2000
"""So many rows of a data set without wordings of its own are there to be drawn from."""


@dataclass(frozen=True)
class Asked:
    """Rows of one data set as they are sent: `task` renders them, `kind` says in what frame.

    Where the right answers are short, `answers` has the labels of each wording, or none where there are none: an answer
    is then leniently right if it holds the right one. It is empty where the task's own metric says what is.
    """

    kind: Kind
    dataset: str
    group: str
    task: Task
    frame: Mapping[str, Any]
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.task.name

    @cached_property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows, in the order of the task's test examples."""
        return self.task.rows.load(self.name, "test", self.task.test, seed=self.task.seed)

    @cached_property
    def digest(self) -> str:
        """Of all that determines a cell but the adapter and the engine, which is this one."""
        return _digest(json.dumps([self.task.digest, self.conversations]))[:12]

    @cached_property
    def conversations(self) -> list[tuple[dict[str, str], ...]]:
        """The messages sent, one conversation a test row."""
        return [self._framed(e.prompt) for e in self.task.test_examples]

    def _framed(self, prompt: str) -> tuple[dict[str, str], ...]:
        user = {"role": "user", "content": prompt}
        if self.kind == "tools":
            system = self.frame["system"] + "\n" + self.frame["tools"]
            return ({"role": "system", "content": system}, user)
        if self.kind == "long":
            user = {"role": "user", "content": self.frame["context"] + "\n\n" + prompt}
            return ({"role": "system", "content": self.frame["system"]}, user)
        if self.kind == "turns":
            shown = self.task.examples("train", 1)[0]
            first = {"role": "user", "content": shown.prompt}
            return (first, {"role": "assistant", "content": shown.target}, user)
        return (user,)


@dataclass(frozen=True)
class Source(TrainingSet):
    """What an adapter is trained on, and the data sets that its rows are of."""

    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything to train and to measure."""

    sources: tuple[Source, ...]
    asked: tuple[Asked, ...]
    base_model: str
    training: Training


@dataclass(frozen=True)
class Sizes:
    """Rows: `train` of an adapter; measured `test` of a data set, and `agent` in each agent form."""

    train: int = 300
    test: int = 40
    agent: int = 6


def read_plan(folders: Sequence[Path], work: Path, file: Path = MEASURE, **sizes: int) -> Plan:
    """The data sets of the plan in `file` over `folders`; the rows that are asked are written below `work`.

    `sizes` are asked for in place of the plan's own.

    Raises:
        InputError: the plan, a data set or its rows are not there.
    """
    spec = _read_spec(file)
    asked_for = replace(Sizes(**spec.get("sizes", {})), **sizes)
    group_of = {name: group for group, names in spec["groups"].items() for name in names}
    suite = load_suite("paper-local")
    worded = {t.name: t for t in suite.tasks}
    sets: dict[str, DataSet] = {}
    for folder in sorted((f for parent in folders for f in parent.iterdir() if f.is_dir()), key=lambda f: f.name):
        if folder.name not in spec.get("data_sets", (folder.name,)):
            continue
        meta = json.loads((folder / "META.json").read_text())
        group = group_of.get(folder.name, meta.get("group", folder.name))
        if "templates" in meta:
            sets[folder.name] = as_written(folder, group, meta)
        else:
            changes = spec["tasks"].get(folder.name, {}) | {"rows": {"folder": str(folder.parent.resolve())}}
            task = Task.model_validate(worded[folder.name].model_dump() | changes | {"source": False})
            sets[folder.name] = in_two_wordings(task, group, spec["reworded"][folder.name])
    named = {n for names in (*spec["adapters"].values(), spec.get("data_sets", ())) for n in names}
    if lost := named - set(sets):
        raise InputError(f"no folder of {', '.join(map(str, folders))} has the data set {sorted(lost)[0]}")
    frame = spec["agent"] or {"tasks": ()}
    places = {kind: work / "rows" / kind for kind in ("main", "agent")}
    for data in sets.values():
        data.write(places["main"], data.test[: asked_for.test])
    asked = [data.asked(places["main"], asked_for.test) for data in sets.values()]
    for name in frame["tasks"]:
        # Other items than those of the main task.
        sets[name].write(places["agent"], sets[name].test[asked_for.test : asked_for.test + asked_for.agent])
    for kind in AGENT_KINDS:
        asked += [sets[name].asked(places["agent"], asked_for.agent, kind, frame) for name in frame["tasks"]]
    sources = tuple(mixed_source(name, [sets[n] for n in of], asked_for.train) for name, of in spec["adapters"].items())
    return Plan(sources, tuple(asked), spec["base_model"], Training(**spec["training"]))


def _read_spec(file: Path) -> dict[str, Any]:
    """What a plan's file says, and, of what it says nothing of, the file that it `extends`."""
    try:
        spec = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        said = " ".join(str(exc).split())
        raise InputError(f"{file} is no plan that can be read ({said}): give a file like {MEASURE.name}") from exc
    if not isinstance(spec, dict):
        raise InputError(f"{file} is no plan: give a file like {MEASURE.name}")
    return (_read_spec(file.parent / spec["extends"]) if "extends" in spec else {}) | spec


@dataclass(frozen=True)
class DataSet:
    """One data set: its group, its rows in all wordings, and how they are judged; see `Asked` for `answers`."""

    name: str
    group: str
    judged: Mapping[str, Any]
    train: Sequence[Row]
    test: Sequence[Row]
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, folder: Path, tested: Sequence[Row]) -> None:
        """Write the training rows, and the rows to be tested on, to files that a task reads."""
        place = folder / self.name
        place.mkdir(parents=True, exist_ok=True)
        for split, rows in (("train", self.train), ("test", tested)):
            draft = place / f"{split}.{os.getpid()}.draft"
            draft.write_text("".join(json.dumps(row) + "\n" for row in rows))
            draft.replace(place / f"{split}.jsonl")

    def asked(self, folder: Path, count: int, kind: Kind = "main", frame: Mapping[str, Any] | None = None) -> Asked:
        """The `count` rows that were written to `folder`, in the frame of `kind`."""
        name = self.name if kind == "main" else f"{self.name}-{kind}"
        rows = {"folder": str(folder.resolve()), "dataset": self.name}
        task = Task.model_validate({**self.judged, "name": name, "rows": rows, "test": count})
        return Asked(kind, self.name, self.group, task, frame or {}, self.answers)


def as_written(folder: Path, group: str, meta: Mapping[str, Any]) -> DataSet:
    """A data set of whole prompts in several wordings."""
    rows = {split: _prompts(folder, split) for split in ("train", "test")}
    longest = np.quantile([len(r["target"]) for r in rows["test"]], 0.95)
    # A token is three characters or more. The base model gets room to say a word in a sentence, a number after steps.
    least = 48 if meta["metric"] == "number_in_text" else 16
    judged = {"metric": meta["metric"], "max_tokens": int(np.clip(longest / 3 + 4, least, 56))}
    answers = _short_answers([*rows["train"], *rows["test"]]) if meta.get("answer") in SHORT else {}
    return DataSet(folder.name, group, judged, **rows, answers=answers)


def _short_answers(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """What is right by wording: all labels, or where there are too many for labels nothing."""
    given: dict[str, set[str]] = {}
    for row in rows:
        given.setdefault(row["wording"], set()).add(row["target"])
    return {wording: tuple(sorted(t)) if len(t) <= LISTED_LABELS else () for wording, t in given.items()}


def in_two_wordings(task: Task, group: str, reworded: str) -> DataSet:
    """A task asked in its own words and in others, half of the rows each, so that none is asked in both."""
    other = task.model_copy(update={"prompt": reworded})
    rows: dict[str, list[Row]] = {}
    for split in ("train", "test"):
        pairs = zip(task.examples(split, ROWS), other.examples(split, ROWS), strict=True)
        rows[split] = [
            {
                "input": e.prompt,
                "target": e.target,
                "answer": e.answer,
                "wording": "ab"[i % 2],
                "item": _digest(a.prompt),
            }
            for i, (a, b) in enumerate(pairs)
            for e in ((b if i % 2 else a),)
        ]
    judged = task.model_dump(include={"labels", "metric"}) | {"max_tokens": max(16, task.max_tokens)}
    return DataSet(task.name, group, judged, rows["train"], in_turns(rows["test"]))


def _prompts(folder: Path, split: str) -> list[Row]:
    rows = map(json.loads, (folder / f"{split}.jsonl").read_text().splitlines())
    return in_turns(
        {"input": r["input"], "target": r["target"], "wording": r["template"], "item": f"{folder.name} {r['row']}"}
        for r in rows
    )


def in_turns(rows: Iterable[Row]) -> list[Row]:
    """The rows wording by wording in turn, in an order drawn by their digests; an item's second wording comes last."""
    waiting: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: _digest(r["item"] + r["wording"])):
        waiting.setdefault(row["wording"], []).append(row)
    seen: set[str] = set()
    first: list[Row] = []
    again: list[Row] = []
    while any(waiting.values()):
        for of_wording in waiting.values():
            while of_wording and of_wording[0]["item"] in seen:
                again.append(of_wording.pop(0))
            if of_wording:
                first.append(of_wording.pop(0))
                seen.add(first[-1]["item"])
    return first + again


def mixed_source(name: str, sets: Sequence[DataSet], count: int) -> Source:
    """As many rows of each data set; of one with few rows all, and of the others so many more."""
    taken = [0] * len(sets)
    while sum(taken) < count and (open_ := [i for i, s in enumerate(sets) if taken[i] < len(s.train)]):
        taken[min(open_, key=lambda i: taken[i])] += 1
    rows = [row for s, n in zip(sets, taken, strict=True) for row in s.train[:n]]
    examples = tuple(Example(prompt=r["input"], target=r["target"], answer=r["target"]) for r in rows)
    return Source(name, examples, datasets=tuple(s.name for s in sets))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_folder_plan(data: Path, sources: Sequence[str], sizes: Sizes | None = None) -> Plan:
    """Every task of a folder as it stands, an adapter trained on each of `sources`; each a group of its own.

    Raises:
        SuiteError: the folder or a source is not there, or a task's rows do not say what it is.
    """
    sizes = sizes or Sizes()
    names = sorted(f.parent.name for f in data.glob("*/test.jsonl"))
    suite = folder_suite(data, sources, names, train=sizes.train, test=sizes.test)
    asked = tuple(Asked("main", t.name, t.name, t, {}) for t in suite.tasks)
    trained = tuple(Source(t.name, tuple(t.training_examples), datasets=(t.name,)) for t in suite.tasks if t.source)
    return Plan(trained, asked, suite.base_model, suite.training)


def cell_file(work: Path, source: str | None, asked: Asked) -> Path:
    """Where a cell is kept."""
    return work / "cells" / (source or "base") / f"{asked.name}-{asked.digest}.safetensors"


def read_cell(file: Path) -> Outcomes:
    """The outcomes in `file`."""
    return Outcomes.from_bytes(file.read_bytes())


def conversation_digest(conversation: Sequence[dict[str, str]]) -> list[int]:
    """128 bits of the digest of the messages sent."""
    return list(hashlib.sha256(json.dumps(conversation).encode()).digest()[:16])
