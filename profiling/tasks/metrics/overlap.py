"""Metrics for free text, which share how much an output has in common with a reference: F1, ROUGE-L, chrF, BLEU.

All are of one sentence or summary, averaged over examples afterwards; corpus BLEU and chrF, which papers report, pool
counts over all examples instead and differ. Strictly right is a score of 1, leniently one of a half. Of several
references the nearest counts. Only so much of an output is read (`LONGEST`) as is longer than any model here writes:
ROUGE-L takes time in the product of both lengths.
"""

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..scoring import Judgement, composed, word_f1
from .metric import Answer, Metric, graded, missing, version_of
from .rules import references

if TYPE_CHECKING:
    from ..task import Task

LONGEST = 16_384
"""Characters of an output and of a reference that are compared."""


class _Overlap(Metric):
    """The similarity of an output to the answer, or to the nearest of the texts in the column `references`."""

    family: ClassVar[str] = "free text"
    package: ClassVar[str | None] = None
    references: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of references."""
        return () if self.references is None else (self.references,)

    @property
    def rules(self) -> Any:
        """The settings, and the version of the library."""
        return [self.setting, f"{self.package} {version_of(self.package)}"] if self.package else self.setting

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """The grade by the nearest reference."""
        output = composed(answer.output[:LONGEST])
        golds = [composed(gold[:LONGEST]) for gold in references(answer.example, self.references)]
        return graded(min(1.0, max(self._similarity(output, gold) for gold in golds)), output)

    def _similarity(self, output: str, gold: str) -> float:
        """How alike an output and a reference are, in [0, 1]."""
        raise NotImplementedError


class F1(_Overlap):
    """Words in common, whatever their order; letters, where a script puts no spaces between words."""

    name: str = "f1"

    @property
    def rules(self) -> Any:
        """The settings, and what counts as a word."""
        return [self.setting, "letters of scripts without spaces"]

    def _similarity(self, output: str, gold: str) -> float:
        return word_f1(output, gold)


class RougeL(_Overlap):
    """ROUGE-L's F measure by rouge-score, which knows letters of English and digits alone."""

    package: ClassVar[str | None] = "rouge-score"
    name: str = "rouge_l"
    stemmer: bool = True

    def _similarity(self, output: str, gold: str) -> float:
        return _rouge(self.stemmer).score(gold, output)["rougeL"].fmeasure


class Bleu(_Overlap):
    """BLEU of one sentence by sacrebleu, with exponential smoothing and effective order, its own defaults there."""

    package: ClassVar[str | None] = "sacrebleu"
    name: str = "bleu"
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"

    def _similarity(self, output: str, gold: str) -> float:
        return _bleu(self.tokenize).sentence_score(output, [gold]).score / 100


class Chrf(_Overlap):
    """chrF of one sentence by sacrebleu; chrF++ with `word_order: 2`."""

    package: ClassVar[str | None] = "sacrebleu"
    name: str = "chrf"
    word_order: Literal[0, 1, 2] = 0

    def _similarity(self, output: str, gold: str) -> float:
        return _chrf(self.word_order).sentence_score(output, [gold]).score / 100


@lru_cache(maxsize=2)
def _rouge(stemmer: bool) -> Any:
    try:
        from absl import logging
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as exc:
        raise missing("rouge-score") from exc
    # absl, which it brings, closes what standard error was at this moment when logging is set up anew, as uvicorn does.
    logging.get_absl_handler().python_handler.stream = sys.__stderr__
    return RougeScorer(["rougeL"], use_stemmer=stemmer)


@lru_cache(maxsize=8)
def _bleu(tokenize: str) -> Any:
    return _sacrebleu().BLEU(tokenize=tokenize, effective_order=True)


@lru_cache(maxsize=4)
def _chrf(word_order: int) -> Any:
    return _sacrebleu().CHRF(word_order=word_order)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as exc:
        raise missing("sacrebleu") from exc
    return metrics
