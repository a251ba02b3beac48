"""The request texts of `latency.py`: rows of all tasks, joined and cut so that lengths spread log-uniformly."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SHORTEST, LONGEST = 50, 4_000
FIT_ROWS = 16
"""Requests of each task that the profile is fitted on; they are not timed."""
WARM_UP = 20
"""Answers before anything is timed."""
MINI = Path(__file__).parents[2] / "suites" / "mini"

Rows = dict[str, list[str]]


def read_rows(data: Path | None, rng: np.random.Generator) -> Rows:
    """Inputs by task, shuffled; those of the built-in suite without `data`."""
    if data is None:
        both = [(f, f.with_name("test.jsonl")) for f in sorted(MINI.glob("*/train.jsonl"))]
        rows = {train.parent.name: _inputs(train)[:40] + _inputs(test)[:40] for train, test in both}
    else:
        rows = {f.parent.name: _inputs(f) for f in sorted(data.glob("*/test.jsonl"))}
    if not rows:
        raise SystemExit(f"error: {data} holds no <task>/test.jsonl; give a folder that does")
    return {task: [texts[i] for i in rng.permutation(len(texts))] for task, texts in rows.items()}


def split_rows(rows: Rows, count: int) -> tuple[Rows, Rows]:
    """The first `count` rows of each task, and the others."""
    return (
        {task: texts[:count] for task, texts in rows.items()},
        {task: texts[count:] for task, texts in rows.items() if len(texts) > count},
    )


def request_texts(rows: Rows, count: int, rng: np.random.Generator) -> list[str]:
    """Texts of `SHORTEST` to `LONGEST` characters, each of rows of one task."""
    tasks = list(rows)
    lengths = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST + 1), count)).astype(int)
    return [_text(rows[tasks[int(rng.integers(len(tasks)))]], int(n), rng) for n in lengths]


def _text(rows: Sequence[str], length: int, rng: np.random.Generator) -> str:
    text = ""
    while len(text) < length:
        text += ("\n\n" if text else "") + rows[int(rng.integers(len(rows)))]
    return text[:length]


def _inputs(file: Path) -> list[str]:
    return [json.loads(line)["input"] for line in file.read_text("utf-8").splitlines()]
