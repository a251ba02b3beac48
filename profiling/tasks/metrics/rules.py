"""Metrics that tell right from wrong by a rule: those of the table in scoring.py, and these.

metric           strict                                   lenient                           parse failure
number_in_text   the last number is right                 any number is right               no number
contains         holds the answer, as written             but for case, width and marks     empty
choice           the right letter or text, and no more    it is the first choice named      names no choice
regex, a group   what the group holds is the answer       but for case and spaces           the pattern is not found
regex            the pattern matches the whole output     it is found                       it is not found

`contains` and `choice` look for words of their own ("no" is not in "now"). A letter counts as a choice where it stands
at the beginning, in brackets, or after "answer is" and the like, for "A" and "I" are words too.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ....adapters import MetricError
from ..scoring import Judgement, bare_label, composed, find_word, folded, judge, numbers_in, plain
from .metric import Answer, Example, Metric, missing

if TYPE_CHECKING:
    from ..task import Task

_LISTED = re.compile(r"(?:^[ \t]*\(?|\()([A-Z]|\d{1,2})[).:][ \t]*", re.MULTILINE)
"""A choice as prompts list them: "(A) yes" anywhere, "A. yes", "A) yes" or "A: yes" at the start of a line."""
_LETTER = r"\(?([A-Z]|\d{1,2})(?![\w'’])\)?"
_ALONE = re.compile(rf"{_LETTER}[.):]*")
_LED = re.compile(
    rf"^\W*{_LETTER}(?=\s*(?:[).:,\n]|$))|\(([A-Z]|\d{{1,2}})\)"
    rf"|(?:(?i:answer|choice|option)(?:\s{{1,3}}(?i:is|would be))?\s{{0,3}}[:=]?)\W{{0,4}}{_LETTER}"
)


class _Rule(Metric):
    """A metric that looks at one output and its row alone."""

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """The judgement of the rule."""
        return self._judge(answer.output, answer.example)

    def _judge(self, output: str, example: Example) -> Judgement:
        return judge(self.name, output, example.answer)


class Label(Metric):
    """The class that is named first."""

    family: ClassVar[str] = "classification"
    name: str = "label"

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """The judgement by the task's labels."""
        return judge(self.name, answer.output, answer.example.answer, task.labels)


class Number(_Rule):
    """The number after the last "####", or the last one."""

    family: ClassVar[str] = "math"
    name: str = "number"


class Exact(_Rule):
    """The answer as it is written."""

    family: ClassVar[str] = "exact answer"
    name: str = "exact"


class Json(_Rule):
    """An equal JSON object."""

    family: ClassVar[str] = "json"
    name: str = "json"


class Text(_Rule):
    """Half of the words or more."""

    family: ClassVar[str] = "free text"
    name: str = "text"


class NumberInText(_Rule):
    """A number, wherever it stands in the text."""

    family: ClassVar[str] = "math"
    name: str = "number_in_text"

    def _judge(self, output: str, example: Example) -> Judgement:
        gold, numbers = numbers_in(example.answer)[-1:], numbers_in(output)
        return Judgement(
            strict=bool(gold) and numbers[-1:] == gold,
            lenient=bool(gold) and gold[0] in numbers,
            parse_failure=not numbers,
        )


class Contains(_Rule):
    """The answer, or one of the texts in the column `references`, stands in the output."""

    family: ClassVar[str] = "exact answer"
    name: str = "contains"
    references: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of references."""
        return () if self.references is None else (self.references,)

    def _judge(self, output: str, example: Example) -> Judgement:
        golds, written = references(example, self.references), composed(output)
        loose = folded(output)
        strict = any(find_word(written, composed(gold).strip()) >= 0 for gold in golds if gold.strip())
        found = strict or any(find_word(loose, folded(gold).strip()) >= 0 for gold in golds if folded(gold).strip())
        return Judgement(strict=strict, lenient=found, parse_failure=not output.strip())


class Choice(_Rule):
    """One of the choices that the prompt lists, or of those in the column `options`, by its letter or its text."""

    family: ClassVar[str] = "choice"
    name: str = "choice"
    options: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of options."""
        return () if self.options is None else (self.options,)

    def _judge(self, output: str, example: Example) -> Judgement:
        options = self._options(example)
        gold = _place(example.answer, options)
        if gold is None:
            raise MetricError(
                f"the answer {example.answer[:80]!r} is neither letter nor text of one of the choices "
                f"{list(options.items())[:8]} of the prompt {example.prompt[-80:]!r}: list them in the prompt as "
                '"(A) yes", or name their column with {name: choice, options: COLUMN}'
            )
        strict = _place(output, options) == gold
        first = gold if strict else _first_choice(output, options)
        return Judgement(strict=strict, lenient=first == gold, parse_failure=first is None)

    def _options(self, example: Example) -> dict[str, str]:
        """The text of every choice, by its letter."""
        if self.options is None:
            return _listed(example.prompt)
        given = example.columns[self.options]
        # ARC and its like have two lists in one column.
        texts = given.get("text") if isinstance(given, dict) else given
        letters = given.get("label") if isinstance(given, dict) else None
        if not isinstance(texts, list) or not texts:
            raise MetricError(f"the column {self.options!r} holds no list of choices but {str(given)[:80]!r}")
        names = letters if isinstance(letters, list) and len(letters) == len(texts) else map(_letter, range(len(texts)))
        return {str(letter): str(text) for letter, text in zip(names, texts, strict=True)}


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _listed(prompt: str) -> dict[str, str]:
    """The last choices that a prompt lists, from A or 1 on."""
    options: dict[str, str] = {}
    marks = list(_LISTED.finditer(prompt))
    for mark, after in zip(marks, [*marks, None][1:], strict=True):
        letter = mark[1]
        if letter in ("A", "1"):
            options = {}
        if letter in (_letter(len(options)), str(len(options) + 1)):
            text = prompt[mark.end() : after.start() if after else len(prompt)]
            options[letter] = text.strip().partition("\n")[0].strip().rstrip(",;")
    return options


def _place(text: str, options: dict[str, str]) -> str | None:
    """The letter of the choice that the whole of `text` is: "B", "(B)", "B. yes" or "yes"."""
    bare = bare_label(text)
    by_text = [letter for letter, option in options.items() if bare_label(option) == bare]
    if len(by_text) == 1:
        return by_text[0]
    given = text.strip()
    if alone := _ALONE.fullmatch(given):
        return alone[1] if alone[1] in options else None
    led = _LISTED.match(given)
    return led[1] if led and bare_label(options.get(led[1], "")) == bare_label(given[led.end() :]) else None


def _first_choice(output: str, options: dict[str, str]) -> str | None:
    """The letter of the choice that is named first, by letter or by the longest text that starts there."""
    return min(_named(output, options), default=(0, 0, None))[2]


def _named(output: str, options: dict[str, str]) -> Iterator[tuple[int, int, str]]:
    for match in _LED.finditer(output):
        letter = match[1] or match[2] or match[3]
        if letter in options:
            yield match.start(match.lastindex or 0), 0, letter
    text = folded(output)
    for letter, option in options.items():
        bare = bare_label(option)
        if bare and (start := find_word(text, bare)) >= 0:
            yield start, -len(bare), letter


def _compilable(pattern: str) -> str:
    # A missing library is said when something is judged: a suite may be read where nothing is.
    with suppress(ImportError):
        _compiled(pattern)
    return pattern


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    """The pattern for RE2, whose time grows with the text alone, whatever the pattern and however hostile the text."""
    try:
        import re2
    except ImportError as exc:
        raise missing("google-re2") from exc
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0].decode(errors="replace") if isinstance(exc.args[0], bytes) else exc
        raise ValueError(f"RE2, which has no lookaround and back-references, does not take it: {reason}") from exc


class Regex(_Rule):
    """A pattern (RE2) that the output must match; with a group, what is in it is compared with the answer."""

    family: ClassVar[str] = "exact answer"
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ("target",)
    name: str = "regex"
    pattern: Annotated[str, Field(max_length=4000), AfterValidator(_compilable)]

    def _judge(self, output: str, example: Example) -> Judgement:
        pattern = _compiled(self.pattern)
        text = output.strip().encode(errors="replace").decode()
        found = pattern.search(text)
        if pattern.groups and found:
            held = composed(found.group(1) or "").strip()
            answer = composed(example.answer).strip()
            return Judgement(strict=held == answer, lenient=plain(held) == plain(answer), parse_failure=False)
        whole = found is not None and pattern.fullmatch(text) is not None
        return Judgement(strict=whole, lenient=found is not None, parse_failure=found is None)


def references(example: Example, column: str | None) -> list[str]:
    """The texts that are right: those of `column`, or the answer.

    Raises:
        MetricError: the column holds no text.
    """
    if column is None:
        return [example.answer]
    given = example.columns[column]
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise MetricError(f"the column {column!r} holds neither text nor a list of texts but {str(given)[:80]!r}")
    return texts
