"""What every metric gives real rows' own answers, and those of other rows; and how long a thousand judgements take.

    python benchmarks/metrics.py --data DIR --prompts DIR     a minute of two cores, most of it programs in the sandbox

`DIR/<data set>/test.jsonl` are rows with `input` and `target`. A metric is sound on a data set where the gold answers
score 1 and the shuffled ones little: as much as two rows have in common.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from traitroute.profiling import Example, Task
from traitroute.profiling.tasks.inference import infer_task

_JSON = {"type": "object", "required": ["intent"]}
CASES: tuple[tuple[str, Any], ...] = (
    ("e2e_extract", "exact"),
    ("mnli", "label"),
    ("gsm8k", "number"),
    ("gsm8k", "number_in_text"),
    ("gsm8k", {"name": "regex", "pattern": r"#### (-?[\d,.]+)"}),
    ("snips_json", "json"),
    ("snips_json", {"name": "json_schema", "schema": _JSON}),
    ("arc_easy", "choice"),
    ("tydiqa_en", "contains"),
    ("mbpp", {"name": "code", "setup": "setup"}),
    *((data, metric) for data in ("p3_samsum", "p3_gigaword", "p3_common_gen") for metric in ("text", "f1", "rouge_l")),
    ("p3_samsum", "chrf"),
    ("p3_samsum", "bleu"),
)
"""Data sets and the metrics they are judged by."""


@dataclass(frozen=True)
class Measured:
    """Mean scores of a metric on n examples, and milliseconds a judgement."""

    examples: int
    gold: float
    shuffled: float
    milliseconds: float


def measure(task: Task) -> Measured:
    """Judge the targets of a task's rows, in their places and in others'."""
    examples = task.test_examples
    targets = [example.target for example in examples]
    # A shift of a random order leaves no row its own answer.
    order = random.Random(0).sample(range(len(targets)), len(targets))
    moved = dict(zip(order, [*order[1:], order[0]], strict=True))
    task.judge(targets[:1], examples[:1])
    start = time.perf_counter()
    gold, shuffled = mean(task, targets, examples), mean(task, [targets[moved[i]] for i in range(len(order))], examples)
    return Measured(len(examples), gold, shuffled, 1000 * (time.perf_counter() - start) / (2 * len(examples)))


def mean(task: Task, outputs: Sequence[str], examples: Sequence[Example]) -> float:
    """The mean score of `outputs`."""
    return float(np.mean([judgement.score for judgement in task.judge(outputs, examples)]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--prompts", type=Path, required=True, help="folder of data sets called p3_...")
    parser.add_argument("--test", type=int, default=160, help="rows of each")
    given = parser.parse_args()
    table = Table("data set", "metric", "examples", "gold", "shuffled", "s a 1,000")
    for name, metric in CASES:
        folder = given.prompts if name.startswith("p3_") else given.data
        task = infer_task(folder, name, source=False, train=0, test=given.test, splits=("test",))
        called = metric if isinstance(metric, str) else metric["name"]
        answer = {"answer": "{{ target.split('#### ')[1] }}"} if called == "regex" else {}
        m = measure(Task.model_validate(task.model_dump() | {"metric": metric} | answer))
        table.add_row(name, called, str(m.examples), f"{m.gold:.3f}", f"{m.shuffled:.3f}", f"{m.milliseconds:.3g}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
