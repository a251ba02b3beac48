"""Which adapter gave an answer: compared with what each adapter says when nothing else runs, header and body aside."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import httpx
from traitroute.serving.state import AUTO, BASE

from .client import Answer, stream_answer
from .stand import Stand

MAX_TOKENS = 8
GIVEN = re.compile("^[^:@]*:|@[0-9a-f]{12,64}$")
"""What the gateway adds to the names of adapters that it has an upstream load: digests, and for Ray the base model."""


class Verdict(StrEnum):
    """`right`; `wrong adapter`: another one says this; `unlike any`: none says it; `misnamed`: header and body
    disagree.
    """

    RIGHT = "right"
    WRONG_ADAPTER = "wrong adapter"
    UNLIKE_ANY = "unlike any"
    MISNAMED = "misnamed"
    NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Truth:
    """What each model says to each prompt alone: `said[model, prompt]`; `base` is what base's answers name as their
    model.
    """

    said: Mapping[tuple[str, str], str]
    base: str

    @property
    def models(self) -> list[str]:
        """The models that may be asked for by name."""
        return list(dict.fromkeys(model for model, _ in self.said))

    @property
    def prompts(self) -> list[str]:
        """The prompts asked."""
        return list(dict.fromkeys(prompt for _, prompt in self.said))

    def judge(self, answer: Answer) -> Verdict:
        """Say who gave an answer."""
        if answer.status != 200 or answer.cut:
            return Verdict.NO_ANSWER
        teller = answer.adapter if answer.asked == AUTO else answer.asked
        if GIVEN.sub("", answer.model) != (self.base if teller == BASE else teller):
            return Verdict.MISNAMED
        if answer.text == self.said.get((teller, answer.prompt)):
            return Verdict.RIGHT
        others = (self.said[model, answer.prompt] for model in self.models)
        return Verdict.WRONG_ADAPTER if answer.text in others else Verdict.UNLIKE_ANY

    def count(self, answers: Iterable[Answer]) -> dict[str, int]:
        """How many answers got each verdict."""
        return dict(Counter(str(self.judge(a)) for a in answers))


def unmistakable(said: Mapping[tuple[str, str], str], base: str) -> Truth:
    """Keep the prompts that every model answers in its own way."""
    models = {model for model, _ in said}
    prompts = dict.fromkeys(prompt for _, prompt in said)
    kept = {p for p in prompts if len({said[m, p] for m in models}) == len(models)}
    return Truth({key: text for key, text in said.items() if key[1] in kept}, base)


async def learn_truth(client: httpx.AsyncClient, stand: Stand, prompts: Sequence[str]) -> Truth:
    """Ask every adapter, and base, every prompt, one at a time."""
    said = {}
    for model in (*stand.rows, BASE):
        for prompt in prompts:
            answer = await stream_answer(client, model, prompt, max_tokens=MAX_TOKENS)
            said[model, prompt] = answer.text
            await asyncio.sleep(0)
    return unmistakable(said, stand.base)
