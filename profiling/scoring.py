"""Judge answers: strictly (the answer as asked for), leniently (the answer can be found), or not parsed.

metric   strict                              lenient                          parse failure
label    the whole answer is the label       first label named is right       names no label
number   value after the last "####"         last number of the answer        no number
json     whole answer is the equal object    first object found is equal      no JSON object
exact    equal after trimming                equal but for case and spaces    empty
text     equal but for case and spaces       token F1 of at least 0.5         empty
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Judgement:
    """How one output fares against the gold answer; `label` is an index, or -1 where none was named."""

    strict: bool
    lenient: bool
    parse_failure: bool
    label: int = -1


def judge(metric: str, output: str, answer: str, labels: tuple[str, ...] = ()) -> Judgement:
    """Judge `output` against the gold `answer` by `metric`; see the table of this module."""
    if metric == "label":
        return _judge_label(output, answer, labels)
    return _JUDGES[metric](output.strip(), answer.strip())


def _judge_label(output: str, answer: str, labels: tuple[str, ...]) -> Judgement:
    whole = output.strip().rstrip(".").casefold()
    named = _first_label(output, labels)
    return Judgement(
        strict=whole == answer.casefold(),
        lenient=named >= 0 and labels[named] == answer,
        parse_failure=named < 0,
        label=named,
    )


def _first_label(output: str, labels: tuple[str, ...]) -> int:
    """Index of the label named first; the longest of those that start at the same place."""
    found = []
    for index, label in enumerate(labels):
        match = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", output, re.IGNORECASE)
        if match:
            found.append((match.start(), -len(label), index))
    return min(found)[2] if found else -1


def _judge_number(output: str, answer: str) -> Judgement:
    gold = _value(_NUMBER.findall(answer)[-1]) if _NUMBER.search(answer) else None
    marked = _NUMBER.match(output.rpartition("####")[2].strip()) if "####" in output else None
    numbers = _NUMBER.findall(output)
    return Judgement(
        strict=marked is not None and _value(marked.group()) == gold,
        lenient=bool(numbers) and _value(numbers[-1]) == gold,
        parse_failure=not numbers,
    )


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _judge_json(output: str, answer: str) -> Judgement:
    gold = json.loads(answer)
    found = _first_object(output)
    return Judgement(
        strict=_object(output) == gold, lenient=found == gold, parse_failure=found is None
    )


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _first_object(text: str) -> Any:
    start = text.find("{")
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(text[start:])[0]
    except ValueError:
        return None


def _judge_exact(output: str, answer: str) -> Judgement:
    return Judgement(
        strict=output == answer, lenient=_plain(output) == _plain(answer), parse_failure=not output
    )


def _judge_text(output: str, answer: str) -> Judgement:
    return Judgement(
        strict=_plain(output) == _plain(answer),
        lenient=token_f1(output, answer) >= 0.5,
        parse_failure=not output,
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def token_f1(output: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the multisets of words and marks, in [0, 1]."""
    a, b = Counter(_WORDS.findall(output.casefold())), Counter(_WORDS.findall(answer.casefold()))
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


_JUDGES: Mapping[str, Callable[[str, str], Judgement]] = {
    "number": _judge_number,
    "json": _judge_json,
    "exact": _judge_exact,
    "text": _judge_text,
}
