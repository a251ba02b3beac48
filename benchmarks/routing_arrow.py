"""Measure PEFT's own Arrow routing over the adapters of the routing benchmark: what mixing per token answers.

    python benchmarks/routing_arrow.py --data DATA --data PROMPTS        when outcomes.py has trained its adapters

Arrow (arXiv 2405.11157) keeps of every adapter, in every layer, the input direction that its update stretches
most. Each token is answered by the adapters whose directions it lies along: here the best three of each layer,
mixed by a softmax, which are PEFT's defaults. It needs no training and no measuring, and it never leaves the
base model as it is. GenKnowSub, which subtracts general-knowledge adapters first, is off: there are none here.

The base model, the chat prompts and the plain greedy decoding are those of the other cells; only the layers
are PEFT's. The first --rows rows of a task are the first rows of its cells. A killed run goes on where it was;
a task measured over other adapters (some train while this runs) is measured anew.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing.plan import read_plan
from safetensors import safe_open
from safetensors.numpy import save_file
from traitroute.adapters import InputError
from traitroute.profiling import BaseModelFolder, Task, open_base_model
from traitroute.profiling.matrix.measure import request_for
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.training import RECORD
from traitroute.serving.engines.engine import PromptTokenizer
from traitroute.serving.engines.local_model import Precision, fastest_precision

TOP_K = 3
"""Adapters mixed for a token: PEFT's default, and as many as there are where there are fewer."""
BATCH = 32


class ArrowModel:
    """PEFT's Arrow model over the adapters in `folders`; `key` is the digest of what determines its answers."""

    def __init__(self, base: BaseModelFolder, folders: Sequence[Path], *, precision: Precision | None = None) -> None:
        import torch
        from peft import ArrowConfig, create_arrow_model
        from traitroute.serving.engines.decoding import keeps_all_keys, use_grouped_attention
        from transformers import AutoModelForCausalLM

        precision = precision or fastest_precision()
        cuda = torch.cuda.is_available()
        model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=getattr(torch, precision))
        if not cuda and keeps_all_keys(model):
            use_grouped_attention(model)
        # Without a seed the directions differ from run to run: fifteen steps of power iteration find them.
        config = ArrowConfig(top_k=min(TOP_K, len(folders)), rng_seed=0)
        arrow = create_arrow_model(model, [str(f) for f in folders], config)
        self.model: Any = arrow.to("cuda" if cuda else "cpu").eval()
        self.prompts = PromptTokenizer(base.path)
        ends = model.generation_config.eos_token_id
        self._ends = (ends,) if isinstance(ends, int) else tuple(ends or ())
        self.adapters = tuple(f.name for f in folders)
        records = [json.loads((f / RECORD).read_text())["key"] for f in folders]
        self.key = _digest([base.digest, precision, config.top_k, records])

    def answer(self, prompts: Sequence[list[int]], max_tokens: int) -> list[str]:
        """Greedy answers to `prompts`, which are token ids, in their order."""
        import torch
        from traitroute.serving.engines.decoding import greedy, prefill

        answers: dict[int, str] = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            with torch.inference_mode():
                batch = prefill(self.model, [prompts[i] for i in rows], room=max_tokens)
                tokens = greedy(self.model, batch, [max_tokens] * len(batch.mask), self._ends)
            answers |= dict(zip(rows, map(self.prompts.decode, tokens), strict=True))
        return [answers[i] for i in range(len(prompts))]


@dataclass(frozen=True)
class ArrowCell:
    """Whether Arrow was right on the first rows of a task, (rows,) each; `key` says over what it was measured."""

    key: str
    adapters: tuple[str, ...]
    strict: NDArray[np.bool_]
    lenient: NDArray[np.bool_]

    def save(self, file: Path) -> None:
        """Write the cell; a killed run leaves a draft at most."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        about = {"key": self.key, "adapters": json.dumps(self.adapters)}
        save_file({"strict": self.strict, "lenient": self.lenient}, draft, metadata=about)
        draft.replace(file)

    @classmethod
    def load(cls, file: Path) -> "ArrowCell":
        """Read what `save` wrote."""
        with safe_open(file, framework="numpy") as stored:
            about = stored.metadata()
            strict, lenient = stored.get_tensor("strict"), stored.get_tensor("lenient")
        return cls(about["key"], tuple(json.loads(about["adapters"])), strict, lenient)


def cell_file(work: Path, task: str) -> Path:
    """Where a task's cell is kept."""
    return work / "cells" / "arrow" / f"{task}.safetensors"


def read_arrow(work: Path, tasks: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Of each of `tasks` that is measured, (rows, 2): right strictly, right leniently.

    Raises:
        InputError: the tasks were measured over different adapters.
    """
    cells = {t: ArrowCell.load(f) for t in tasks if (f := cell_file(work, t)).is_file()}
    if len({cell.adapters for cell in cells.values()}) > 1:
        raise InputError(
            f"the Arrow cells in {work} were measured over different adapters; "
            "run benchmarks/routing_arrow.py again, which measures the older ones anew"
        )
    return {t: np.stack([cell.strict, cell.lenient], axis=1) for t, cell in cells.items()}


def trained_folders(work: Path, sources: Sequence[str]) -> list[Path]:
    """The PEFT folders of those of `sources` whose training is complete.

    Raises:
        InputError: there is none.
    """
    folders = [work / "runs" / name for name in sources]
    complete = [f for f in folders if (f / RECORD).is_file()]
    if not complete:
        raise InputError(f"no trained adapter in {work / 'runs'}; run benchmarks/outcomes.py with this --work first")
    return complete


def measure(arrow: ArrowModel, task: Task, rows: int, file: Path) -> ArrowCell:
    """What Arrow does on the first `rows` rows of `task`, measured unless `file` holds just that."""
    key = _digest([arrow.key, task.digest, rows])
    if file.is_file() and (found := ArrowCell.load(file)).key == key:
        return found
    examples = task.test_examples[:rows]
    prompts = [arrow.prompts.prompt(request_for(task, e, None).messages) for e in examples]
    judged = task.judge(arrow.answer(prompts, task.max_tokens), examples)
    strict, lenient = np.array([[j.strict, j.lenient] for j in judged]).T
    cell = ArrowCell(key, arrow.adapters, strict.copy(), lenient.copy())
    cell.save(file)
    return cell


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def show(cells: dict[str, ArrowCell]) -> None:
    """Print the share of right answers, a task a line, and their mean over tasks."""
    from rich.console import Console
    from rich.table import Table

    table = Table("task", title=f"Arrow over {len(next(iter(cells.values())).adapters)} adapters")
    for column in ("rows", "strict", "lenient"):
        table.add_column(column, justify="right")
    scores = {t: (float(c.strict.mean()), float(c.lenient.mean())) for t, c in cells.items()}
    for task, (strict, lenient) in scores.items():
        table.add_row(task, str(len(cells[task].strict)), f"{strict:.0%}", f"{lenient:.0%}")
    strict, lenient = np.mean(list(scores.values()), axis=0)
    table.add_section()
    table.add_row("mean over tasks", "", f"{strict:.1%}", f"{lenient:.1%}")
    Console().print(table)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of data sets; repeatable")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/measure"),
        help="the folder that outcomes.py worked in",
    )
    parser.add_argument("--rows", type=int, default=25, help="test rows of a task, from the first")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Measure Arrow on every main task."""
    import torch
    from rich.progress import Progress

    given = arguments()
    torch.set_num_threads(given.threads)
    quiet_libraries()
    plan = read_plan(given.data, given.work)
    sources = [t.name for t in plan.sources]
    tasks = [a.task for a in plan.asked if a.kind == "main"]
    folders = trained_folders(given.work, sources)
    arrow = ArrowModel(open_base_model(plan.base_model), folders)
    cells: dict[str, ArrowCell] = {}
    with Progress() as progress:
        progress.console.print(f"adapters: {', '.join(arrow.adapters)} ({len(sources)} planned)")
        bar = progress.add_task("measure tasks", total=len(tasks))
        for task in tasks:
            progress.update(bar, description=f"measure {task.name}")
            cells[task.name] = measure(arrow, task, given.rows, cell_file(given.work, task.name))
            progress.advance(bar)
    show(cells)


if __name__ == "__main__":
    main()
