"""Judge answers: strictly (the answer as asked for), leniently (the answer can be found), or not parsed.

metric   strict                              lenient                          parse failure
label    the whole answer is the label       first label named is right       names no label
number   value after the last "####"         or the last number               no number
json     whole answer is the equal object    first object found is equal      no JSON object
exact    equal after trimming                equal but for case and spaces    empty
text     equal but for case and spaces       token F1 of at least 0.5         empty

What is strictly right is leniently right too. Texts are compared in Unicode's composed form (NFC). In labels, case,
last full stops and the width of characters never count, nor do marks that may be left out (Arabic and Hebrew vowels,
variation selectors).

A label counts as named where it stands as a word of its own. A word boundary is needed only where both sides are of
scripts that put spaces between words: 是 is found in 答案是错误的, and "no" in no です, but "no" is not in
"now". So one-character labels are found inside longer words of such scripts too; labels of two characters or more are
safer there.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...adapters import Outcomes

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_WORDS = re.compile(r"\w+|[^\w\s]")
_FULL_STOPS = ".。।۔։።។။"
_OPTIONAL_MARKS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0670\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_OTHER_WIDTHS = re.compile("[\uff01-\uff5e\uff61-\uff9f]+")
_JOINERS = ("\u200c", "\u200d")
_UNSPACED = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "BOPOMOFO ", "YI ", "THAI ", "LAO "),
    *("KHMER ", "MYANMAR ", "TIBETAN ", "JAVANESE ", "BALINESE ", "TAI ", "NEW TAI LUE "),
)
"""Scripts that put no space between words, by the names of their characters."""


Score = Literal["strict", "lenient", "metric", "likelihood"]
"""What of the outcomes a matrix is made of: right as asked for, right anywhere, what the task's metric gives, or
likelihood of the gold answer."""
Scores = Score | Mapping[str, Score]
"""One score for all tasks, or each task's by its name."""


@dataclass(frozen=True)
class Judgement:
    """How one output fares against the gold answer; `label` is an index, or -1 where none was named.

    `score` is what the task's metric gives, in [0, 1]; a metric that only tells right from wrong gives `strict`.
    """

    strict: bool
    lenient: bool
    parse_failure: bool
    label: int = -1
    metric_score: float | None = None

    @property
    def score(self) -> float:
        """The metric's own score, in [0, 1]."""
        return float(self.strict) if self.metric_score is None else self.metric_score


def judge(metric: str, output: str, answer: str, labels: tuple[str, ...] = ()) -> Judgement:
    """Judge `output` against the gold `answer` by `metric`; see the table of this module."""
    output, answer = composed(output), composed(answer)
    if metric == "label":
        return _judge_label(output, answer, labels)
    return _JUDGES[metric](output.strip(), answer.strip())


def example_scores(outcomes: Outcomes, score: Score) -> NDArray[np.float64]:
    """The score of every example, shape (n,): in [0, 1], or nats per target token for `likelihood`."""
    if score == "likelihood":
        return outcomes.log_likelihood / np.maximum(outcomes.target_tokens, 1).astype(np.float64)
    return getattr(outcomes, "score" if score == "metric" else score).astype(np.float64)


def score_on(task: str, scores: Scores) -> Score:
    """The score of `scores` that a task is looked at by."""
    return scores if isinstance(scores, str) else scores[task]


def composed(text: str) -> str:
    """The text in NFC, in which é is one character however it was typed."""
    return unicodedata.normalize("NFC", text)


def bare_label(label: str) -> str:
    """What counts of a label: those with the same rest are one label to the judge."""
    return folded(label).strip().rstrip(_FULL_STOPS)


def _judge_label(output: str, answer: str, labels: tuple[str, ...]) -> Judgement:
    whole, gold = bare_label(output), bare_label(answer)
    bare = [bare_label(label) for label in labels]
    named = bare.index(whole) if whole in bare else _first_label(output, labels)
    return Judgement(
        strict=whole == gold, lenient=named >= 0 and bare[named] == gold, parse_failure=named < 0, label=named
    )


def folded(text: str) -> str:
    """The text in one case and width, without vowel marks and variation selectors that writers may leave out."""
    if text.isascii():
        return text.lower()
    plain = _OPTIONAL_MARKS.sub("", composed(text))
    narrow = _OTHER_WIDTHS.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), plain)
    # Folding leaves the dot of the Turkish İ behind, which its small letter i has not.
    return composed(narrow.casefold().replace("i\u0307", "i"))


def _first_label(output: str, labels: tuple[str, ...]) -> int:
    """Index of the label named first; the longest of those that start at the same place."""
    text, named = folded(output), []
    for index, label in enumerate(map(folded, labels)):
        start = find_word(text, label)
        if start >= 0:
            named.append((start, -len(label), index))
    return min(named)[2] if named else -1


def find_word(text: str, label: str) -> int:
    """Where `label` first stands in `text` as a word of its own, or -1."""
    start = text.find(label)
    while start >= 0:
        end = start + len(label)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not _goes_on(label[-1:], after) and not _belongs(before, label[:1], _UNSPACED):
            return start
        start = text.find(label, start + 1)
    return -1


def _goes_on(last: str, after: str) -> bool:
    """Whether the word that `last` ends goes on with the character `after`."""
    # Korean puts spaces between words, and endings right after them.
    return _is_mark(after) or _belongs(after, last, (*_UNSPACED, "HANGUL "))


def _belongs(neighbour: str, edge: str, unspaced: tuple[str, ...]) -> bool:
    """Whether `neighbour` is of a word, and neither it nor the label's `edge` of a script without spaces."""
    in_word = neighbour.isalnum() or neighbour == "_" or _is_mark(neighbour)
    if not in_word or (neighbour + edge).isascii():
        return in_word
    return not any(_of(c, unspaced) for c in neighbour + edge)


@lru_cache(maxsize=1 << 16)
def _of(character: str, scripts: tuple[str, ...]) -> bool:
    """Whether it is of one of these scripts, by its name."""
    return unicodedata.name(character, "").startswith(scripts)


def _is_mark(character: str) -> bool:
    """Whether it is part of the character before it: an accent, a vowel sign, a joiner."""
    return character in _JOINERS or (character != "" and unicodedata.category(character) in ("Mn", "Mc"))


def _judge_number(output: str, answer: str) -> Judgement:
    gold = numbers_in(answer)[-1:]
    marked = _NUMBER.match(output.rpartition("####")[2].strip()) if "####" in output else None
    numbers = numbers_in(output)
    strict = marked is not None and [_value(marked.group())] == gold
    return Judgement(
        strict=strict, lenient=strict or (bool(numbers) and numbers[-1:] == gold), parse_failure=not numbers
    )


def numbers_in(text: str) -> list[float]:
    """The numbers in a text, in their order, however their thousands are written."""
    return [_value(number) for number in _NUMBER.findall(text)]


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _judge_json(output: str, answer: str) -> Judgement:
    gold = _first_object(answer)
    given = _first_object(output)
    equal = given is not None and given == gold
    return Judgement(strict=equal and _is_object(output), lenient=equal, parse_failure=given is None)


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
    return Judgement(strict=output == answer, lenient=plain(output) == plain(answer), parse_failure=not output)


def _judge_text(output: str, answer: str) -> Judgement:
    return Judgement(
        strict=plain(output) == plain(answer), lenient=token_f1(output, answer) >= 0.5, parse_failure=not output
    )


def plain(text: str) -> str:
    """The text in one case, with single spaces."""
    return " ".join(text.casefold().split())


def token_f1(output: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the multisets of words and punctuation, in [0, 1]."""
    return _f1(_WORDS.findall(output.casefold()), _WORDS.findall(answer.casefold()))


def word_f1(output: str, answer: str) -> float:
    """The same over `words`. The metric `text`, whose digests do not tell how words are told, keeps to `token_f1`."""
    return _f1(words(output.casefold()), words(answer.casefold()))


def words(text: str) -> list[str]:
    """Words and punctuation; in scripts without spaces between words every letter is taken for one."""
    found: list[str] = []
    for word in _WORDS.findall(text):
        found += letters_apart(word)
    return found


def letters_apart(word: str) -> list[str]:
    """The word, each letter of a script without spaces between words by itself."""
    if word.isascii():
        return [word]
    parts: list[str] = []
    joined = False
    for character in word:
        alone = _of(character, _UNSPACED)
        if joined and not alone:
            parts[-1] += character
        else:
            parts.append(character)
        joined = not alone
    return parts


def _f1(ours: list[str], theirs: list[str]) -> float:
    a, b = Counter(ours), Counter(theirs)
    shared = (a & b).total()
    total = a.total() + b.total()
    return 2 * shared / total if total else 1.0


_JUDGES: Mapping[str, Callable[[str, str], Judgement]] = {
    "number": _judge_number,
    "json": _judge_json,
    "exact": _judge_exact,
    "text": _judge_text,
}
