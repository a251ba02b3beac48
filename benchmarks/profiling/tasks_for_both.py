"""The same rows for both: tasks of ours, and files that lm-evaluation-harness reads them from."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from traitroute.profiling import Task
from traitroute.profiling.tasks.inference import infer_task

TASKS = (
    *("amazon_polarity", "arc_easy", "boolq", "mnli", "paws", "product_sentiment3", "toxicity_wiki"),
    *("e2e_extract", "goat_arithmetic", "snips_json", "spider_sql", "svamp"),
)
"""Seven that are answered by a label, and five that are answered at length."""


def choose_tasks(data: Path, names: Sequence[str], rows: int) -> list[Task]:
    """The tasks `names` of a folder of data sets, `rows` test rows of each."""
    if lost := [name for name in names if not (data / name / "test.jsonl").is_file()]:
        have = sorted(p.parent.name for p in data.glob("*/test.jsonl"))
        raise SystemExit(f"{data} has no test rows of {', '.join(lost)}; --tasks takes some of: {' '.join(have)}")
    return [infer_task(data, name, source=False, train=0, test=rows) for name in names]


def write_harness_tasks(tasks: Sequence[Task], folder: Path) -> None:
    """Write each task's rendered rows, and the file that tells the harness to ask them, word for word."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        rows = folder / f"{task.name}.jsonl"
        lines = [json.dumps({"prompt": e.prompt, "answer": e.answer}) for e in task.test_examples]
        rows.write_text("\n".join(lines) + "\n")
        told = {
            "task": task.name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(rows.resolve())}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",
            # Both stop at the end of the turn, and where the room ends.
            "generation_kwargs": {"until": [], "max_gen_toks": task.max_tokens, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        }
        (folder / f"{task.name}.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
