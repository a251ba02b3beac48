"""What the routing benchmark measures: the data sets, in which words they are asked, and where each cell is kept.

`routing/tasks.yaml` says what is asked; a folder of <task>/{train,test}.jsonl holds the rows.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from traitroute.adapters import Outcomes
from traitroute.profiling import Suite, Task, load_suite
from traitroute.profiling.tasks.suite import folder_suite

Kind = Literal["main", "probe", "reworded", "tools", "turns", "long", "confirmation"]
AGENT_KINDS: tuple[Kind, ...] = ("tools", "turns", "long")


@dataclass(frozen=True)
class Asked:
    """One way of asking a data set: `task` renders its rows, `kind` says what it is for."""

    kind: Kind
    dataset: str
    task: Task
    frame: dict[str, str]

    @property
    def name(self) -> str:
        return self.task.name

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
class Plan:
    """Everything to train and to measure."""

    sources: tuple[Task, ...]
    asked: tuple[Asked, ...]
    suite: Suite


@dataclass(frozen=True)
class Sizes:
    """Rows: `train` of a source; measured `test` of a task, `few` reworded or of a probe, `agent` in each agent form,
    `confirmation` of a task that only confirms.
    """

    train: int = 400
    test: int = 100
    few: int = 16
    agent: int = 10
    confirmation: int = 60


def read_plan(data: Path, sizes: Sizes | None = None) -> Plan:
    """The tasks of routing/tasks.yaml over `data`."""
    sizes = sizes or Sizes()
    spec = yaml.safe_load((Path(__file__).with_name("tasks.yaml")).read_text())
    suite = load_suite("paper-local").over(data)
    tasks = {t.name: t for t in suite.tasks if t.name not in spec["left_out"]}
    for name, limit in spec["max_tokens"].items():
        tasks[name] = tasks[name].model_copy(update={"max_tokens": limit})
    main = {n: t.model_copy(update={"test": sizes.test, "train": sizes.train}) for n, t in tasks.items()}
    asked = [Asked("main", n, t, {}) for n, t in main.items()]
    for probe in spec["probes"]:
        rows = {"folder": str(data.resolve()), "dataset": probe["dataset"]}
        settings = {"max_tokens": 10} | {k: v for k, v in probe.items() if k != "dataset"}
        task = Task.model_validate({"rows": rows, "test": sizes.few, **settings})
        asked.append(Asked("probe", probe["dataset"], task, {}))
    for name, prompt in spec["reworded"].items():
        asked.append(Asked("reworded", name, _variant(tasks[name], "reworded", sizes.few, prompt=prompt), {}))
    frame = spec["agent"]
    for kind in AGENT_KINDS:
        for name in frame["tasks"]:
            asked.append(Asked(kind, name, _variant(tasks[name], kind, sizes.agent), frame))
    for task in load_suite(spec["confirmation"]).tasks:
        fresh = task.model_copy(update={"test": sizes.confirmation})
        asked.append(Asked("confirmation", task.name, fresh, {}))
    return Plan(tuple(main[n] for n in spec["sources"]), tuple(asked), suite)


def read_folder_plan(data: Path, sources: Sequence[str], sizes: Sizes | None = None) -> Plan:
    """Every task of a folder as it stands, an adapter trained on each of `sources`.

    Raises:
        SuiteError: the folder or a source is not there, or a task's rows do not say what it is.
    """
    sizes = sizes or Sizes()
    names = sorted(f.parent.name for f in data.glob("*/test.jsonl"))
    suite = folder_suite(data, sources, names, train=sizes.train, test=sizes.test)
    asked = tuple(Asked("main", t.name, t, {}) for t in suite.tasks)
    return Plan(tuple(t for t in suite.tasks if t.source), asked, suite)


def _variant(task: Task, kind: str, rows: int, **changes: Any) -> Task:
    place = task.rows.model_copy(update={"dataset": task.name})
    named = {"name": f"{task.name}-{kind}", "rows": place, "test": rows, "seed": 1}
    return task.model_copy(update={**named, **changes})


def cell_file(work: Path, source: str | None, asked: Asked) -> Path:
    """Where a cell is kept; named by all that determines it but the engine, which is this one."""
    parts = json.dumps([asked.task.digest, asked.conversations])
    digest = hashlib.sha256(parts.encode()).hexdigest()[:12]
    return work / "cells" / (source or "base") / f"{asked.name}-{digest}.safetensors"


def read_cell(file: Path) -> Outcomes:
    """The outcomes in `file`."""
    return Outcomes.from_bytes(file.read_bytes())


def conversation_digest(conversation: Sequence[dict[str, str]]) -> list[int]:
    """128 bits of the digest of the messages sent."""
    return list(hashlib.sha256(json.dumps(conversation).encode()).digest()[:16])
