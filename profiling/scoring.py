"""Judge answers: strictly (the answer as asked for), leniently (the answer can be found), or not parsed.

metric   strict                              lenient                          parse failure
label    the whole answer is the label       first label named is right       names no label
number   value after the last "####"         or the last number               no number
json     whole answer is the equal object    first object found is equal      no JSON object
exact    equal after trimming                equal but for case and spaces    empty
text     equal but for case and spaces       token F1 of at least 0.5         empty

What is strictly right is leniently right too. Case and last full stops of a label never count.
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
    whole, gold = _bare(output), _bare(answer)
    bare = [_bare(label) for label in labels]
    named = bare.index(whole) if whole in bare else _first_label(output, labels)
    return Judgement(
        strict=whole == gold,
        lenient=named >= 0 and bare[named] == gold,
        parse_failure=named < 0,
        label=named,
    )


def _bare(label: str) -> str:
    return label.strip().rstrip(".").casefold()


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
    strict = marked is not None and _value(marked.group()) == gold
    return Judgement(
        strict=strict,
        lenient=strict or (bool(numbers) and _value(numbers[-1]) == gold),
        parse_failure=not numbers,
    )


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _judge_json(output: str, answer: str) -> Judgement:
    gold = _first_object(answer)
    found = _first_object(output)
    equal = found is not None and found == gold
    return Judgement(
        strict=equal and _is_object(output), lenient=equal, parse_failure=found is None
    )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _first_object(text: str) -> Any:
    start = text.find("{")
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(text[start:])[0]
    except (ValueError, RecursionError):
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
    total = a.total() + b.total()
    return 2 * shared / total if total else 1.0


_JUDGES: Mapping[str, Callable[[str, str], Judgement]] = {
    "number": _judge_number,
    "json": _judge_json,
    "exact": _judge_exact,
    "text": _judge_text,
}
