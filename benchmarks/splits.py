"""How far the built-in suite's test rows are from its training rows.

    python benchmarks/splits.py

For each generated task: pairs of test and training rows that differ by at most one exchanged word, the share of test words
(four letters or more) seen in training, and how well a bag-of-words classifier fitted on the training rows does on the test
rows, beside chance. Needs the core only.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
near_duplicates = import_module("mini_suite").near_duplicates

MINI = Path(__file__).parents[1] / "suites" / "mini"
Row = dict[str, str]


def main() -> None:
    """Print one line a task."""
    print(f"{'task':<17}{'near pairs':>11}{'words seen':>12}{'bag of words':>14}{'chance':>8}")
    for name in sorted(f.name for f in MINI.iterdir()):
        rows = {split: _rows(MINI / name / f"{split}.jsonl") for split in ("train", "test")}
        train, test = ([row["input"] for row in rows[split]] for split in ("train", "test"))
        pairs = len(near_duplicates(train, test))
        print(f"{name:<17}{pairs:>11}{_seen(train, test):>12.0%}{_bag_of_words(rows)}")


def _rows(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def _seen(train: list[str], test: list[str]) -> float:
    tokens = CountVectorizer(token_pattern=r"[^\W\d_]{4,}").build_analyzer()
    known = {word for text in train for word in tokens(text)}
    words = [word for text in test for word in tokens(text)]
    return sum(word in known for word in words) / max(len(words), 1)


def _bag_of_words(rows: dict[str, list[Row]]) -> str:
    if "label" not in rows["train"][0]:
        return ""
    inputs, labels = (
        {split: [row.get(column, "") for row in rows[split]] for split in rows} for column in ("input", "label")
    )
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    score = model.fit(inputs["train"], labels["train"]).score(inputs["test"], labels["test"])
    return f"{score:>14.2f}{1 / len(set(labels['test'])):>8.2f}"


if __name__ == "__main__":
    main()
