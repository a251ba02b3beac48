"""Write the rows of the built-in suite `mini` to `suites/mini/<task>/{train,test}.jsonl`, from seed 0.

    python scripts/make_mini_suite.py [FOLDER]

The rows are committed, and a test compares them with what this script makes. Needs no package.
"""

import json
import sys
from pathlib import Path

from mini_suite import GENERATORS, generate

TRAIN, TEST, SEED = 400, 120, 0


def write_rows(folder: Path) -> None:
    """Write both splits of every generated task below `folder`."""
    for name in GENERATORS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, rows in generate(name, train=TRAIN, test=TEST, seed=SEED).items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write_rows(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "suites" / "mini")
