"""How often does a real judge say what the metric says, where the right answers are known?

    python benchmarks/judge.py --data DIR --judge URL --model NAME       gold answers against other rows'
    python benchmarks/judge.py … --server URL --adapters a,b             adapters' own answers against base's

The judge is any OpenAI-compatible server. Of some requests of ten data sets it is shown two answers, in both orders,
without being told which is right: the gold answer and that of another row, which the metric says is wrong, and these
it also grades alone, as servers have it do; or, with --server, each adapter's answer and base's, from which is told
what `traitroute samples compare` would make of the judge. An answer is right where the metric finds what is right in it
(lenient). Nothing is kept. A judge of 0.5B parameters takes some ten minutes of two cores.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table
from traitroute.adapters import MetricError
from traitroute.profiling import Example, Task
from traitroute.profiling.judge_trial import JudgeTrial, TrialCell
from traitroute.profiling.tasks.inference import infer_task
from traitroute.profiling.tasks.metrics import Answer
from traitroute.profiling.tasks.metrics.judge import Judge, Pair
from traitroute.profiling.tasks.metrics.judge_report import JudgeReport, Share
from traitroute.serving.engines.completions import CompletionsClient
from traitroute.serving.judge import Judge as Grader
from traitroute.serving.judge import shown

Ask = Callable[[str, Example], str]
DATA_SETS = (
    *("boolq", "mnli", "paws", "amazon_polarity", "product_sentiment3"),
    *("banking77", "arc_easy", "svamp", "tydiqa_en", "e2e_extract"),
)
AT_A_TIME = 4
LONGEST_ANSWER = 64
"""Tokens; the answers looked for are short."""


@dataclass(frozen=True)
class Compared:
    """An answer beside another one to the same request, and by how much it is better by the metric, -1, 0 or 1.

    `whose` is the first: gold, or an adapter.
    """

    whose: str
    task: str
    answer: Answer
    gain: float


def golden(task: Task) -> Iterator[Compared]:
    """The gold answers to a task's requests, each beside the first of the rows after it that is wrong there."""
    examples = task.test_examples
    for i, example in enumerate(examples):
        others = [other.target for other in (*examples[i + 1 :], *examples[:i])]
        found = task.judge(others, [example] * len(others))
        wrong = next((other for other, said in zip(others, found, strict=True) if not said.lenient), None)
        if wrong is not None:
            yield Compared("gold", task.name, Answer(example.target, _without_answer(example), wrong), 1.0)


def answered(task: Task, adapters: Sequence[str], ask: Ask) -> Iterator[Compared]:
    """The answers of adapters to a task's requests, beside base's."""
    examples = task.test_examples

    def outputs_of(name: str) -> tuple[list[str], list[bool]]:
        with ThreadPoolExecutor(len(examples)) as pool:
            outputs = list(pool.map(partial(ask, name), examples))
        return outputs, [said.lenient for said in task.judge(outputs, examples)]

    base, base_right = outputs_of("base")
    for name in adapters:
        for example, output, right, of_base, was_right in zip(
            examples, *outputs_of(name), base, base_right, strict=True
        ):
            yield Compared(
                name, task.name, Answer(output, _without_answer(example), of_base), float(right) - float(was_right)
            )


def _without_answer(example: Example) -> Example:
    """The example without its right answer."""
    return example.model_copy(update={"answer": "", "target": "", "columns": {}})


def ask_all(judge: Judge, compared: Sequence[Compared]) -> tuple[list[Pair | None], str]:
    """What the judge says of each (None: equal answers, which it is not shown), and what that took."""
    began = time.perf_counter()
    pairs = judge.pairs([each.answer for each in compared])
    seconds = time.perf_counter() - began
    count = sum(2 for pair in pairs if pair is not None)
    read = sum(pair.tokens[0] for pair in pairs if pair is not None)
    return pairs, (
        f"{count} verdicts in {seconds:.0f} s, {seconds / max(count, 1):.2f} s each, on {read / max(count, 1):.0f} "
        f"tokens on the mean, {judge.concurrency} pairs at a time"
    )


def table_of(compared: Sequence[Compared], pairs: Sequence[Pair | None]) -> Table:
    """How the judge did on the pairs of which one answer is right and the other wrong."""
    out = Table(
        "", "pairs", "right, undecided, wrong", "right of the decided", "order decides", "first wins", "unreadable"
    )
    found = [(c, pair) for c, pair in zip(compared, pairs, strict=True) if pair is not None and c.gain]
    names = dict.fromkeys(c.task for c, _ in found), dict.fromkeys(c.whose for c, _ in found)
    for name in (*names[0], *(names[1] if len(names[1]) > 1 else ()), "all"):
        own = [(c.gain, pair) for c, pair in found if name in (c.task, c.whose, "all")]
        told = [np.sign(gain * (pair.score - 0.5)) for gain, pair in own]
        right, wrong = told.count(1), told.count(-1)
        report = JudgeReport.of([pair for _, pair in own])
        out.add_row(
            *(name, str(len(own)), f"{right}, {told.count(0)}, {wrong}", str(Share(right, right + wrong))),
            *(str(report.contradictory), str(report.first), str(report.unreadable)),
        )
    return out


def graded(judge: Grader, compared: Sequence[Compared]) -> str:
    """How the judge that servers ask, of one answer at a time, grades right answers and wrong ones."""
    began = time.perf_counter()
    with judge.client() as client, ThreadPoolExecutor(AT_A_TIME) as pool:

        def grade(each: Compared, answer: str) -> float | None:
            return judge.grade(client, shown({"messages": list(each.answer.example.messages)}), answer)

        right = list(pool.map(lambda each: grade(each, each.answer.output), compared))
        wrong = list(pool.map(lambda each: grade(each, each.answer.base_output or ""), compared))
    seconds = (time.perf_counter() - began) / max(2 * len(compared), 1)
    both = [(r, w) for r, w in zip(right, wrong, strict=True) if r is not None and w is not None]
    told = [np.sign(r - w) for r, w in both]
    means = " and ".join(f"{mean:.2f}" for mean in np.mean(both or [(np.nan, np.nan)], axis=0))
    return (
        f"graded alone, right and wrong answers get {means} on the mean; of {len(compared)} pairs {len(both)} have "
        f"both grades, {told.count(1)} the right one the higher, {told.count(-1)} the wrong one: right of the decided "
        f"{Share(told.count(1), len(told) - told.count(0))}; {seconds:.2f} s a grade"
    )


def trial_of(compared: Sequence[Compared], pairs: Sequence[Pair | None]) -> str:
    """What the product makes of these verdicts."""
    verdicts = np.array([0.0 if pair is None else 2 * pair.score - 1 for pair in pairs])
    gains = np.array([each.gain for each in compared])
    cells = []
    for whose, task in dict.fromkeys((c.whose, c.task) for c in compared):
        own = [i for i, c in enumerate(compared) if (c.whose, c.task) == (whose, task)]
        cells.append(TrialCell(whose, task, verdicts[own], gains[own]))
    try:
        trial = JudgeTrial.of(cells)
    except MetricError as refused:
        return f"refused: {refused}"
    return (
        f"a gain of 1 moves a verdict by {trial.slope:.2f} ± {trial.slope_error:.2f}; variances of noise "
        f"{trial.noise:.2f} and of likings {trial.liking:.2f}"
    )


def main() -> None:
    """Ask, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--judge", required=True, help="URL of the judge's server")
    parser.add_argument("--model", required=True, help="the judge's name there")
    parser.add_argument("--rows", type=int, default=8, help="requests of each data set")
    parser.add_argument("--server", help="URL of a server of adapters, such as those that outcomes.py trains")
    parser.add_argument("--adapters", default="", help="their names there, comma-separated")
    given = parser.parse_args()
    console = Console(width=180)
    read = partial(infer_task, given.data, source=False, train=0, test=given.rows, splits=("test",))
    tasks = [read(name) for name in DATA_SETS]
    judge = Judge(model=given.model, url=given.judge, concurrency=AT_A_TIME, patience_s=600)
    with TemporaryDirectory() as cache:
        os.environ["TRAITROUTE_CACHE"] = cache
        if not given.server:
            gold = [each for task in tasks for each in golden(task)]
            pairs, took = ask_all(judge, gold)
            console.print(took, table_of(gold, pairs))
            console.print(graded(Grader(judge.url, judge.model, 1.0), gold))
            return
        with CompletionsClient(given.server, patience_s=600) as client:
            base = client.models()[0]["id"]

            def ask(name: str, example: Example) -> str:
                asked = {"model": base if name == "base" else name, "messages": list(example.messages)}
                reply = client.chat({**asked, "temperature": 0, "max_tokens": LONGEST_ANSWER})
                return str(reply["choices"][0]["message"]["content"])

            own = [each for task in tasks for each in answered(task, given.adapters.split(","), ask)]
        pairs, took = ask_all(judge, own)
        console.print(took, table_of(own, pairs))
        console.print(f"tried on {len(tasks)} tasks: {trial_of(own, pairs)}")


if __name__ == "__main__":
    main()
