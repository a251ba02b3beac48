"""`traitroute judge`: what a task's judge did, and whether people would say the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import InputError, did_you_mean
from .console import say, warn

if TYPE_CHECKING:
    from ..profiling.tasks.metrics.judge import Judge
    from ..profiling.tasks.metrics.judge_report import JudgeReport


def judge(
    suite: Annotated[str, typer.Argument(help="The suite, a YAML file or a built-in one.", show_default=False)],
    task: Annotated[str, typer.Argument(help="The task whose metric is `judge`.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="People's labels, a JSON object a line: prompt, output, base_output, and label (win, loss or tie). "
            "The judge is asked about those that it has not seen."
        ),
    ] = None,
) -> None:
    """Say what a judge cost, whether order or length decides, and whether it agrees with people.

    Reports on the verdicts that profiling kept. Only pairs with a label are sent to the judge.

    Example:

        traitroute judge suite.yaml replies --labels labels.jsonl
    """
    from ..profiling.tasks.metrics.judge import kept_pairs
    from ..profiling.tasks.metrics.judge_report import JudgeReport, agreement, read_labels

    metric = _judge_of(suite, task)
    if labels is not None:
        agreed = agreement(metric, read_labels(labels))
        say(f"agrees with people on {agreed.same} of {agreed.pairs} labelled pairs: kappa {agreed.kappa:.2f}")
        say(f"people prefer the longer answer in {agreed.longer}")
    pairs = [pair for pair in kept_pairs(metric.file) if labels is not None or pair.task == task]
    if not pairs:
        raise InputError(f"{metric.model} has judged nothing of task {task} yet: profile first, or give --labels")
    _say_report(metric, JudgeReport.of(pairs))


def _say_report(metric: "Judge", report: "JudgeReport") -> None:
    sent, written = report.tokens
    say(f"{metric.model}: {report.pairs} pairs in both orders, {sent} tokens read and {written} written")
    say(f"the order decides {report.contradictory}, both verdicts are ties in {report.tied}")
    say(f"what is shown first wins {report.first} of the decided verdicts; a fair judge: 50%")
    say(f"the longer answer wins {report.longer} of the decided pairs")
    if report.unreadable:
        say(f"{report.unreadable} replies could not be read, and count as ties")
    for warning in report.warnings:
        warn(warning)


def _judge_of(suite: str, task: str) -> "Judge":
    from ..profiling.tasks.metrics.judge import Judge
    from ..profiling.tasks.suite import load_tasks

    tasks = {each.name: each for each in load_tasks(suite)}
    if task not in tasks:
        raise InputError(f"suite {suite} has no task {task!r}{did_you_mean(task, tasks)}")
    metric = tasks[task].metric
    if not isinstance(metric, Judge):
        raise InputError(f'task {task} is judged by "{metric.name}", and only metric "judge" has a report')
    return metric
