"""What is known of a judge: what it cost, whether order or length decides, and whether it agrees with people.

A fair judge gives either order the same verdict, so that what is shown first wins half of the decided verdicts. Longer
answers may be better ones: their share of wins is set beside that of people's labels, where there are some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.stats import binomtest

from ....adapters import SuiteError
from ..text_files import json_lines
from .judge import Judge, Pair
from .metric import Answer, Example

BIASED = 0.05
"""The p-value below which a share is told from one half."""


class Labelled(BaseModel):
    """A pair that a person judged: whether `output` is better than `base_output`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    output: str
    base_output: str
    label: Literal["win", "loss", "tie"]

    @property
    def answer(self) -> Answer:
        """As the judge is given it."""
        return Answer(self.output, Example(prompt=self.prompt, target="", answer=""), self.base_output)


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, and the p-value of a share of one half."""

    part: int
    whole: int

    @property
    def p_value(self) -> float:
        """Of the two-sided binomial test."""
        return float(binomtest(self.part, self.whole).pvalue) if self.whole else 1.0

    def __str__(self) -> str:
        if not self.whole:
            return "none"
        low, high = binomtest(self.part, self.whole).proportion_ci(method="wilson")
        return f"{self.part / self.whole:.0%} of {self.whole} (95% interval {low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class JudgeReport:
    """What a judge did on `pairs` pairs, each in both orders.

    `first` is the share of decided verdicts that went to what was shown first, `longer` the share of decided pairs that
    went to the longer answer.
    """

    pairs: int
    contradictory: int
    unreadable: int
    tied: int
    first: Share
    longer: Share
    tokens: tuple[int, int]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "JudgeReport":
        """The report on `pairs`."""
        decided = [pair for pair in pairs if pair.score != 0.5 and pair.lengths[0] != pair.lengths[1]]
        verdicts = [(pair.forward, "win") for pair in pairs] + [(pair.backward, "loss") for pair in pairs]
        clear = [verdict == first for verdict, first in verdicts if verdict in ("win", "loss")]
        return cls(
            pairs=len(pairs),
            contradictory=sum(set(pair.verdicts) == {"win", "loss"} for pair in pairs),
            unreadable=sum(pair.verdicts.count("unreadable") for pair in pairs),
            tied=sum(pair.verdicts == ("tie", "tie") for pair in pairs),
            first=Share(sum(clear), len(clear)),
            longer=Share(sum((p.score > 0.5) == (p.lengths[0] > p.lengths[1]) for p in decided), len(decided)),
            tokens=(sum(pair.tokens[0] for pair in pairs), sum(pair.tokens[1] for pair in pairs)),
        )

    @property
    def warnings(self) -> list[str]:
        """What makes its verdicts mean less than they seem to."""
        told = []
        if self.first.p_value < BIASED:
            place = "first" if 2 * self.first.part > self.first.whole else "last"
            told.append(f"it leans towards the answer shown {place}: what is shown first wins {self.first}")
        if self.longer.p_value < BIASED:
            kind = "longer" if 2 * self.longer.part > self.longer.whole else "shorter"
            told.append(f"it leans towards the {kind} answer: the longer one wins {self.longer}")
        if self.pairs and self.contradictory > self.pairs / 4:
            told.append(f"the order decides {self.contradictory} of {self.pairs} pairs, which count as ties")
        return told


@dataclass(frozen=True)
class Agreement:
    """How a judge and people agree on the same pairs: Cohen's `kappa` (NaN where one says the same of all)."""

    pairs: int
    same: int
    kappa: float
    longer: Share


def read_labels(file: Path) -> list[Labelled]:
    """People's labels, a JSON object a line: `prompt`, `output`, `base_output`, and `label` win, loss or tie.

    Raises:
        SuiteError: the file cannot be read, or a line is no such object.
    """
    labels = []
    for where, given in json_lines(file):
        try:
            labels.append(Labelled.model_validate(given))
        except ValidationError as exc:
            error = exc.errors()[0]
            place = ".".join(map(str, error["loc"]))
            raise SuiteError(
                f'{where}: {place}: {error["msg"]}; a line is {{"prompt": …, "output": …, "base_output": …, '
                '"label": "win", "loss" or "tie"}'
            ) from exc
    if not labels:
        raise SuiteError(f"{file} holds no labels")
    return labels


def agreement(judge: Judge, labels: Sequence[Labelled]) -> Agreement:
    """Ask `judge` about the pairs that people labelled, in both orders, and compare.

    Raises:
        MetricError: the judge cannot be asked.
    """
    from sklearn.metrics import cohen_kappa_score

    judged = judge.scores([label.answer for label in labels])
    said = ["tie" if score == 0.5 else ("win" if score > 0.5 else "loss") for score in judged]
    people = [label.label for label in labels]
    decided = [x for x in labels if x.label != "tie" and len(x.output) != len(x.base_output)]
    longer = sum((x.label == "win") == (len(x.output) > len(x.base_output)) for x in decided)
    # One class on both sides leaves nothing to agree on beyond chance.
    kappa = float("nan") if len({*said, *people}) == 1 else float(cohen_kappa_score(people, said))
    same = sum(a == b for a, b in zip(people, said, strict=True))
    return Agreement(len(labels), same, kappa, Share(longer, len(decided)))
