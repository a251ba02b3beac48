"""The metric of tasks without right answers: whether an output has the format that was asked for."""

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from ..scoring import Judgement, bare_label, judge
from .metric import Answer, Metric

if TYPE_CHECKING:
    from ..task import Task

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*)\n\s*```\s*$", re.DOTALL)
ASKS_JSON = re.compile(r"\bjson\b", re.IGNORECASE)
_LETTERED = re.compile(r"^[ \t]*(?:[-*][ \t]+)?\(?([A-Z1-9])[).:][ \t]+(\S.{0,200})$", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(\S.{0,200})$", re.MULTILINE)
_LISTED = re.compile(r"\b(?:one of|either|choose between|choose from|options:|choices:):?[ \t]+([^\n.?!]{3,200})", re.I)
_SEPARATOR = re.compile(r"\s*(?:,|;|/|\bor\b|\band\b)\s*")
_AROUND = " \t\n\"'`*()[]."
"""What may stand around an option."""
MOST_OPTIONS = 20


class Format(Metric):
    """Whether the answer is what was `asked`: JSON, one of the row's options, or anything at all.

    What it says may be wrong: this is what can be told of answers without a right one.
    """

    family: ClassVar[str] = "format"
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ()
    without_answers: ClassVar[bool] = True
    name: str = "format"
    asked: Literal["json", "option", "text"] = "text"

    @property
    def reads(self) -> tuple[str, ...]:
        """The options of a row, where one of them is asked for."""
        return ("options",) if self.asked == "option" else ()

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """Strictly: nothing but what was asked for; leniently: it can be found in the answer."""
        output = answer.output.strip()
        if self.asked == "option":
            return _judge_option(output, tuple(map(str, answer.example.columns["options"])))
        if self.asked == "text":
            return Judgement(strict=bool(output), lenient=bool(output), parse_failure=not output)
        strict = is_json(output)
        lenient = strict or bool((fenced := _FENCE.match(output)) and is_json(fenced[1]))
        return Judgement(strict=strict, lenient=lenient, parse_failure=not lenient)


def _judge_option(output: str, options: tuple[str, ...]) -> Judgement:
    named = judge("label", output, options[0], options).label if options else -1
    return Judgement(strict=_is_option(output, options), lenient=named >= 0, parse_failure=named < 0)


def _is_option(output: str, options: Iterable[str]) -> bool:
    """Whether an output is an option and nothing else: as `A`, `(A)`, `a boat`, or `(A) a boat`."""
    bare = {_bare(option) for option in options}
    lettered = _LETTERED.fullmatch(output.strip())
    return _bare(output) in bare or (lettered is not None and bare.issuperset(map(_bare, lettered.groups())))


def _bare(option: str) -> str:
    return bare_label(option.strip(_AROUND))


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list, and nothing else."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def options_in(prompt: str) -> list[str]:
    """The options among which a prompt asks to choose, each as the ways in which it may be named; none where it lists
    none.
    """
    lettered = _LETTERED.findall(prompt)
    if len(lettered) > 1 and lettered[0][0] in ("A", "1"):
        return _distinct(each.strip() for pair in lettered for each in pair)
    if re.search(r"\b(?:options|choices)\b", prompt, re.I) and len(bullets := _BULLET.findall(prompt)) > 1:
        return _distinct(bullet.strip() for bullet in bullets)
    if listed := _LISTED.search(prompt):
        named = [part.strip(_AROUND) for part in _SEPARATOR.split(listed[1])]
        if len(named) > 1 and all(0 < len(name) <= 40 for name in named):
            return _distinct(named)
    return []


def keeps_format(prompt: str, output: str) -> bool | None:
    """Whether an output is what a prompt asks for, one of the options that it lists or JSON; None where it asks for
    neither."""
    if options := options_in(prompt):
        return _is_option(output, options)
    return is_json(output.strip()) if ASKS_JSON.search(prompt) else None


def _distinct(options: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(o for o in options if bare_label(o)))[: 2 * MOST_OPTIONS]
