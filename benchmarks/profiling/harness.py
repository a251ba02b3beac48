"""lm-evaluation-harness over a suite's rendered rows, one adapter a run: what benchmarks/profiling.py compares with."""

import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traitroute.profiling import BaseModelFolder, Task
from traitroute.profiling.tasks.task import LISTED_LABELS

KINDS = ("choice", "generation")
Verdicts = dict[tuple[str, str], NDArray[np.bool_]]
"""For each (adapter, task) whether each row is right, (rows, 2): strictly, leniently."""


@dataclass
class Side:
    """What one side did: seconds by stage, and its verdicts."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("load", *KINDS), 0.0))
    verdicts: Verdicts = field(default_factory=dict)

    def clock(self, stage: str, work: Callable[[], Any]) -> Any:
        """Do `work`, and put its time down to `stage`."""
        start = time.perf_counter()
        result = work()
        self.seconds[stage] += time.perf_counter() - start
        return result

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def kind_of(task: Task) -> str:
    """Few labels: a choice; else the answer is generated."""
    return "choice" if 0 < len(task.labels) <= LISTED_LABELS else "generation"


def choice_verdicts(task: Task, scores: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    """Right where the gold label is the likeliest; `scores` (rows, labels) in the task's order."""
    gold = [task.labels.index(e.answer) for e in task.test_examples]
    right = np.argmax(np.array(scores), axis=1) == gold
    return np.stack([right, right], axis=1)


def text_verdicts(task: Task, texts: Sequence[str]) -> NDArray[np.bool_]:
    """Judge generated answers by the task's metric."""
    judged = task.judge(texts, task.test_examples)
    return np.array([[j.strict, j.lenient] for j in judged])


class Harness:
    """lm-evaluation-harness over the same rows, its task objects built once."""

    def __init__(self, base: BaseModelFolder, tasks: Sequence[Task]) -> None:
        from lm_eval.tasks import TaskManager

        self._base = base
        self._tasks = {kind: [t for t in tasks if kind_of(t) == kind] for kind in KINDS}
        # Indexing the harness's own tasks takes seconds, and none of them is used.
        self._manager = TaskManager(include_defaults=False)
        self._objects = {t.name: harness_task(t) for t in tasks}

    def tune(self, folder: Path, candidates: Sequence[str]) -> dict[str, str]:
        """The fastest batch size for each kind, on one adapter and up to two tasks of the kind."""
        import torch

        tried = [*candidates, "auto"] if torch.cuda.is_available() else list(candidates)
        model = self._model(folder)
        return {
            kind: min(tried, key=lambda size, kind=kind: self._seconds(model, kind, size))
            for kind in KINDS
            if self._tasks[kind]
        }

    def run(self, folders: Sequence[Path], sizes: dict[str, str]) -> Side:
        """Evaluate the base model and each adapter, every one in a run of its own."""
        side = Side()
        for folder in (None, *folders):
            model = side.clock("load", lambda folder=folder: self._model(folder))
            for kind, size in sizes.items():
                tasks = self._tasks[kind]
                samples = side.clock(
                    kind,
                    lambda model=model, tasks=tasks, size=size: self._evaluate(model, tasks, size),
                )
                for task in tasks:
                    rows = sorted(samples[task.name], key=lambda row: row["doc_id"])
                    key = (folder.name if folder else "base", task.name)
                    side.verdicts[key] = harness_verdicts(task, rows)
        return side

    def _model(self, folder: Path | None) -> Any:
        import torch
        from lm_eval.models.huggingface import HFLM

        return HFLM(
            pretrained=str(self._base.path),
            peft=str(folder) if folder else None,
            dtype="bfloat16",
            device="cuda" if torch.cuda.is_available() else "cpu",
        )

    def _seconds(self, model: Any, kind: str, size: str) -> float:
        start = time.perf_counter()
        self._evaluate(model, self._tasks[kind][:2], size)
        return time.perf_counter() - start

    def _evaluate(self, model: Any, tasks: Sequence[Task], size: str) -> dict[str, list[Any]]:
        from lm_eval import simple_evaluate

        model.batch_size_per_gpu = int(size) if size.isdigit() else size
        # Its progress bars cannot be turned off otherwise.
        with redirect_stderr(StringIO()):
            results: Any = simple_evaluate(
                model=model,
                tasks=[self._objects[t.name] for t in tasks],
                task_manager=self._manager,
                apply_chat_template=True,
                bootstrap_iters=0,
            )
        return results["samples"]


def harness_task(task: Task) -> Any:
    """The harness's task object over our rendered rows."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [{"prompt": e.prompt, "answer": e.answer} for e in task.test_examples]
    config: dict[str, Any] = {
        "task": task.name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "doc_to_text": "prompt",
        "target_delimiter": "",
    }
    if kind_of(task) == "choice":
        config |= {
            "output_type": "multiple_choice",
            "doc_to_choice": list(task.labels),
            "doc_to_target": lambda doc: task.labels.index(doc["answer"]),
            "metric_list": [{"metric": "acc"}],
        }
    else:
        config |= {
            "output_type": "generate_until",
            "doc_to_target": "answer",
            "generation_kwargs": {
                "until": [],
                "max_gen_toks": task.max_tokens,
                "do_sample": False,
            },
            "metric_list": [{"metric": "exact_match"}],
        }
    return ConfigurableTask(config=config)


def harness_verdicts(task: Task, rows: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
    """Judge the harness's samples of a task, in the order of its rows."""
    if kind_of(task) == "choice":
        return choice_verdicts(task, [[r[0][0] for r in row["resps"]] for row in rows])
    return text_verdicts(task, [row["resps"][0][0] for row in rows])
