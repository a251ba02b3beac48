"""Who says, without a right answer, whether an adapter's answer is better than base's: a judge, the others, the format.

A verdict is 1 where the adapter's answer is better, -1 where base's is, between where it is not sure, and NaN where
nothing can be said. How far verdicts are to be believed is found out on tasks with right answers (`judge_trial.py`),
whoever gives them, so a referee that is of no use for a registry's adapters is refused there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..adapters import Adapter, MetricError, RefusalError, ServerError
from .tasks.metrics import Answer, Example
from .tasks.metrics.agreement import Agreement
from .tasks.metrics.format import keeps_format
from .tasks.metrics.judge import Judge

Array = NDArray[np.float64]
NOT_OF_THE_REQUEST = frozenset({401, 403, 404})
Outputs = Sequence[str | None]
"""An adapter's answers to some examples; None where it was not asked."""


class Referee(Protocol):
    """Gives verdicts; `name` is what reports call it."""

    @property
    def name(self) -> str: ...

    def verdicts(
        self, examples: Sequence[Example], adapters: Sequence[Adapter], outputs: Sequence[Outputs], base: Sequence[str]
    ) -> list[Array]:
        """Verdicts on the `outputs` of each adapter to the n examples, against `base`'s: (n,) for each.

        Raises:
            MetricError: it cannot be used.
            ServerError: it is away.
        """
        ...


@dataclass(frozen=True)
class ByJudge:
    """A model says which of two answers is better, asked in both orders; it is shown the requests and the answers."""

    judge: Judge

    @property
    def name(self) -> str:
        """The model."""
        return self.judge.model

    def verdicts(
        self, examples: Sequence[Example], adapters: Sequence[Adapter], outputs: Sequence[Outputs], base: Sequence[str]
    ) -> list[Array]:
        """What the judge says of each pair."""
        return [self._of_one(examples, of_one, base) for of_one in outputs]

    def _of_one(self, examples: Sequence[Example], outputs: Outputs, base: Sequence[str]) -> Array:
        said = np.full(len(outputs), np.nan)
        places = [i for i, output in enumerate(outputs) if output is not None]
        answers = [Answer(outputs[i] or "", examples[i], base[i]) for i in places]
        try:
            said[places] = 2 * np.array(self.judge.scores(answers)) - 1
        except MetricError as exc:
            if exc.__cause__ is None:
                raise
            # What its server says may repeat the texts that it was sent. A wrong key or name is mended meanwhile.
            away = not isinstance(exc.__cause__, RefusalError) or exc.__cause__.status in NOT_OF_THE_REQUEST
            raise (ServerError if away else MetricError)(
                f"the judge {self.judge.model!r} at {self.judge.url} could not be asked "
                f"({type(exc.__cause__).__name__}): its verdicts until now are kept"
            ) from None
        return said


@dataclass(frozen=True)
class ByAgreement:
    """Whose answer more of the other adapters give, but for case and spaces; adapters of the same weights count once.

    It costs nothing, and suits requests with short answers: long ones never agree.
    """

    name: str = "agreement"

    def verdicts(
        self, examples: Sequence[Example], adapters: Sequence[Adapter], outputs: Sequence[Outputs], base: Sequence[str]
    ) -> list[Array]:
        """The share of the others that agree with the adapter, less of those that agree with base."""
        weights = [adapter.weights_digest for adapter in adapters]
        said = np.full((len(outputs), len(examples)), np.nan)
        for n in range(len(examples)):
            votes = {w: _read(of[n]) for w, of in zip(weights, outputs, strict=True) if of[n] is not None}
            for i, of_one in enumerate(outputs):
                others = Counter(vote for w, vote in votes.items() if w != weights[i])
                if of_one[n] is not None and others:
                    mine, its = ((others[text] if text else 0) for text in (_read(of_one[n]), _read(base[n])))
                    said[i, n] = (mine - its) / others.total()
        return list(said)


@dataclass(frozen=True)
class ByFormat:
    """Which answer has the format that the request asks for: JSON, or one of the options that it lists.

    It costs nothing, says nothing of other requests, and nothing of what stands in the answer.
    """

    name: str = "format"

    def verdicts(
        self, examples: Sequence[Example], adapters: Sequence[Adapter], outputs: Sequence[Outputs], base: Sequence[str]
    ) -> list[Array]:
        """1 where the adapter alone keeps the format, -1 where base alone does."""
        of_base = [keeps_format(example.prompt, answer) for example, answer in zip(examples, base, strict=True)]
        said = []
        for of_one in outputs:
            kept = [None if o is None else keeps_format(e.prompt, o) for e, o in zip(examples, of_one, strict=True)]
            pairs = zip(kept, of_base, strict=True)
            said.append(np.array([np.nan if a is None or b is None else float(a) - float(b) for a, b in pairs]))
        return said


def _read(output: str | None) -> str:
    return Agreement().compared(output or "")
