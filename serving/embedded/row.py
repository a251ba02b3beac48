"""A row of the batch: a request that is being answered, from its order to its last piece."""

from collections.abc import Sequence

from ..engines.engine import PromptTokenizer
from .generation import Generation, Piece
from .sampling import Sampler, Sampling
from .text import TextStream


class Row:
    """A request that is being answered, with its sampler and the text it has so far."""

    def __init__(self, generation: Generation, tokenizer: PromptTokenizer) -> None:
        order = generation.order
        self.generation, self.order = generation, order
        self.sampler = Sampler(Sampling(order.temperature, order.top_p, order.seed))
        self.text = TextStream(tokenizer.decode, order.stops)
        self.tokens = 0
        self.ended = False

    def take(self, token: int | None, ends: Sequence[int]) -> None:
        """Hand on what `token` says."""
        if token is None:
            self.fail("the model computed values that are no numbers")
            return
        if token in ends and not self.order.ignore_eos:
            self._end("")
            return
        self.tokens += 1
        text = self.text.push(token)
        if self.text.stopped or self.tokens >= self.order.max_tokens:
            self._end(text)
        elif text:
            self.generation.put(Piece(text, self.tokens))

    def fail(self, message: str) -> None:
        """End with an error."""
        self.ended = True
        self.generation.put(Piece("", self.tokens, error=message))

    def _end(self, text: str) -> None:
        full = self.tokens >= self.order.max_tokens
        if not self.text.stopped:
            text += self.text.finish()
        self.ended = True
        finish = "length" if full and not self.text.stopped else "stop"
        self.generation.put(Piece(text, self.tokens, finish))


def filled(going: Sequence[bool]) -> list[int]:
    """The rows that stay, the last ones moved into the places of those that go: few move."""
    staying = [row for row, goes in enumerate(going) if not goes]
    order = list(range(len(staying)))
    movers = [row for row in staying if row >= len(order)]
    for place in order:
        if going[place]:
            order[place] = movers.pop()
    return order
