"""How many of a log's templates are found again, and how long it takes.

    python benchmarks/log_templates.py --prompts PROMPTS                     10,000 requests, every wording as often
    python benchmarks/log_templates.py --prompts PROMPTS --skewed            few wordings make most of the log
    python benchmarks/log_templates.py                                       the built-in suite's eight tasks

PROMPTS holds `<data set>/{train,test}.jsonl` with rows of `input` and `template` (the wording), and `META.json` with
the `group` of data sets that are alike. The log is one of LiteLLM's form, each request a line.

The figure is the adjusted Rand index between the groups found and who asked: 1 where they agree, 0 where they agree no
more than chance does. A request in no group counts as a group of its own. Data sets that are alike may ask in the very
same words, which nothing could tell apart; "wording" takes them for one, and then other alike data sets, which do not,
are taken for one as well. Beside it stands what would do without us: the first words alone, and k-means over TF-IDF,
which is told how many wordings there are.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score
from traitroute.profiling.tasks.from_log import tasks_from_log
from traitroute.profiling.tasks.templates import group_by_template

FIRST_WORDS = 5
BUILT_IN = Path(__file__).parents[1] / "suites" / "mini"
console = Console(width=120)


@dataclass(frozen=True)
class Asked:
    """A request, who asked, and in which wording."""

    text: str
    answer: str
    who: str
    wording: str


def main() -> None:
    """Make the log, group it, and print how well and how fast."""
    arguments = _arguments()
    asked = _drawn(_read(arguments.prompts), arguments.requests, arguments.seed, skewed=arguments.skewed)
    texts = [each.text for each in asked]
    wordings = len({each.who for each in asked})
    console.print(f"{len(asked)} requests in {wordings} wordings; seed {arguments.seed}")
    table = Table("by", "groups", "in none", "index: who asked", "index: wording", "seconds")
    ways: dict[str, Callable[[], Sequence[Any]]] = {
        "templates": lambda: [g if g >= 0 else f"alone {i}" for i, g in enumerate(group_by_template(texts).tolist())],
        f"first {FIRST_WORDS} words": lambda: [" ".join(text.split()[:FIRST_WORDS]) for text in texts],
        f"k-means, k={wordings}": lambda: _k_means(texts, wordings, arguments.seed),
    }
    for name, way in ways.items():
        start = time.perf_counter()
        groups = list(map(str, way()))
        seconds = time.perf_counter() - start
        alone = sum(group.startswith("alone") for group in groups)
        scores = [
            adjusted_rand_score(truth, groups)
            for truth in ([each.who for each in asked], [each.wording for each in asked])
        ]
        found = len(set(groups)) - alone
        table.add_row(name, str(found), f"{alone / len(groups):.1%}", *(f"{s:.3f}" for s in scores), f"{seconds:.1f}")
    console.print(table)
    _time_command(asked)


def _time_command(asked: Sequence[Asked]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.jsonl"
        with log.open("w") as lines:
            lines.writelines(json.dumps(_line(each)) + "\n" for each in asked)
        start = time.perf_counter()
        tasks, _ = tasks_from_log(log, Path(scratch) / "out", fewest=5, most=10**6)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(
        f"the whole command: {len(tasks)} tasks in {seconds:.1f} s; peak memory {peak:.1f} GB with all of this"
    )


def _line(asked: Asked) -> dict[str, Any]:
    answer = {"choices": [{"message": {"role": "assistant", "content": asked.answer}}]}
    return {
        "call_type": "acompletion",
        "messages": [{"role": "user", "content": asked.text}],
        "response": answer,
    }


def _read(prompts: Path) -> dict[str, list[Asked]]:
    """The requests of every wording of every data set."""
    found: dict[str, list[Asked]] = {}
    for folder in sorted(path for path in prompts.iterdir() if path.is_dir()):
        meta = folder / "META.json"
        group = json.loads(meta.read_text())["group"] if meta.exists() else folder.name
        for file in sorted(folder.glob("*.jsonl")):
            for row in map(json.loads, file.read_text().splitlines()):
                who, wording = (f"{name}: {row.get('template', '')}" for name in (folder.name, group))
                found.setdefault(who, []).append(Asked(row["input"], row["target"], who, wording))
    return found


def _drawn(found: dict[str, list[Asked]], count: int, seed: int, *, skewed: bool) -> list[Asked]:
    draw = random.Random(seed)
    names = draw.sample(sorted(found), len(found))
    # As Zipf's law has it, but never more than there are.
    shares = [1 / (1 + 0.15 * i) if skewed else 1.0 for i in range(len(names))]
    size = {name: max(1, round(len(found[name]) * share)) for name, share in zip(names, shares, strict=True)}
    asked = [each for name in names for each in draw.sample(found[name], size[name])]
    return draw.sample(asked, min(count, len(asked)))


def _k_means(texts: Sequence[str], count: int, seed: int) -> Sequence[int]:
    rows = TfidfVectorizer(ngram_range=(1, 2), min_df=5, max_features=20_000).fit_transform(texts)
    return MiniBatchKMeans(count, random_state=seed, n_init=1).fit_predict(rows).tolist()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, default=BUILT_IN)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--skewed", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
