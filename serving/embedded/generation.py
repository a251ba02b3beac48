"""One answer in the making: its request, the choice of its tokens, its text, and the chunks that its reader gets.

A chunk of text is given out once no later token can change it: bytes of a character wait for its last byte, and what
may be the start of a stop string waits until it is or is not one. All chunks together are the whole answer, so
that a streamed answer equals one that is not.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from ...adapters import Adapter, RunError
from ..engines.engine import PromptTokenizer

Finish = Literal["stop", "length"]
_GREEDY_BELOW = 1e-5
"""Dividing by a lower temperature would overflow."""
_UNFINISHED = "\ufffd"
"""What tokenizers show for bytes that are no character yet."""


class GenerationError(RunError):
    """An answer could not be completed."""


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate: up to `max_tokens` after `prompt`, by `adapter` (None: the base model).

    A temperature of 0 takes the likeliest token; `seed` None is a fresh seed.
    """

    prompt: list[int]
    adapter: Adapter | None
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Chunk:
    """Some text of an answer; the last chunk has its `finish`, or an `error`.

    `tokens` are all that were generated so far, without an end-of-turn token.
    """

    text: str
    tokens: int
    finish: Finish | None = None
    error: str = ""

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or bool(self.error)


@dataclass(eq=False)
class Generation:
    """The chunks of the answer to `request`; must be made on the event loop that reads them.

    `wake` is called after an abort, so that the decoder's thread sees it.
    """

    request: GenerationRequest
    wake: Callable[[], None] = lambda: None
    aborted: bool = False
    since: float = field(default_factory=time.monotonic)
    _chunks: asyncio.Queue[Chunk] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def put(self, chunk: Chunk) -> None:
        """Hand over a chunk; called in the decoder's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)

    def abort(self) -> None:
        """End the answer: its row is freed before the next token."""
        if not self.aborted:
            self.aborted = True
            self._chunks.put_nowait(Chunk("", 0, error="aborted"))
            self.wake()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """The chunks as they come.

        Raises:
            GenerationError: the answer was aborted or could not be completed.
        """
        while True:
            chunk = await self._chunks.get()
            if chunk.error:
                raise GenerationError(chunk.error)
            yield chunk
            if chunk.last:
                return


class Row:
    """A row of the decoder's batch: a request that is being answered, with its sampler and its text so far."""

    def __init__(self, generation: Generation, tokenizer: PromptTokenizer) -> None:
        self.generation, self.request = generation, generation.request
        self.sampler = Sampler(self.request)
        self.text = TextStream(tokenizer.decode, self.request.stops)
        self.tokens = 0
        self.ended = False

    def take(self, token: int | None, ends: Sequence[int]) -> None:
        """Add the next token, and pass on the text that it settles."""
        if token is None:
            self.fail("the model computed values that are no numbers")
            return
        if token in ends and not self.request.ignore_eos:
            self._end("")
            return
        self.tokens += 1
        text = self.text.push(token)
        if self.text.stopped or self.tokens >= self.request.max_tokens:
            self._end(text)
        elif text:
            self.generation.put(Chunk(text, self.tokens))

    def fail(self, message: str) -> None:
        """End with an error."""
        self.ended = True
        self.generation.put(Chunk("", self.tokens, error=message))

    def _end(self, text: str) -> None:
        full = self.tokens >= self.request.max_tokens
        if not self.text.stopped:
            text += self.text.finish()
        self.ended = True
        finish = "length" if full and not self.text.stopped else "stop"
        self.generation.put(Chunk(text, self.tokens, finish))


class Sampler:
    """Draws the tokens of one answer: its own generator makes a seed repeatable in any batch."""

    def __init__(self, request: GenerationRequest) -> None:
        self.greedy = request.temperature < _GREEDY_BELOW
        self._generator = torch.Generator()
        if request.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(request.seed)
        if not self.greedy:
            # Their annotations ask for subclasses of tensors that nothing makes.
            self._temperature: Any = TemperatureLogitsWarper(float(request.temperature))
            self._nucleus: Any = TopPLogitsWarper(float(request.top_p))

    def draw(self, logits: torch.Tensor) -> int:
        """A token for `logits` (vocabulary,)."""
        ids = torch.empty(1, 0, dtype=torch.long)
        scores = self._nucleus(ids, self._temperature(ids, logits[None].float().cpu()))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


def next_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """The next token of every row of `logits` (rows, vocabulary); None where the model computed no number."""
    likeliest = logits.argmax(dim=-1).tolist()
    finite = logits.amax(dim=-1).isfinite().tolist()
    return [
        None if not fine else token if sampler.greedy else sampler.draw(row)
        for fine, token, sampler, row in zip(finite, likeliest, samplers, logits, strict=True)
    ]


class TextStream:
    """The text of one answer, from token ids; `stopped` says that a stop string ended it."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._tokens: list[int] = []
        # Some tokenizers write a token differently at the start of a text, so each is decoded after others.
        self._context = 0
        self._decoded = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that `token` settles, which may be none."""
        self._tokens.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(_UNFINISHED):
            return ""
        self._context, self._decoded = self._decoded, len(self._tokens)
        return self._release(fresh)

    def finish(self) -> str:
        """What was still held back."""
        text = self._release(self._fresh())
        held, self._held = self._held, ""
        return text + held

    def _fresh(self) -> str:
        known = self._decode(self._tokens[self._context : self._decoded])
        return self._decode(self._tokens[self._context :])[len(known) :]

    def _release(self, fresh: str) -> str:
        text, self._held = self._held + fresh, ""
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
