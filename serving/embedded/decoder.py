"""The thread that owns the model: continuous batching of requests for different adapters.

Between two tokens, rows that ended or were aborted leave the batch, and waiting requests join it: their prompts are
read together and their key-value caches are joined to the others'. Requests join in the order they came. One whose
adapter finds no slot yet waits for rows to end, and may be overtaken by requests for loaded adapters for `PATIENCE_S`,
not longer. Models whose caches cannot be joined (sliding windows, attention of their own) take new requests when their
batch has ended.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from ...adapters import Adapter, WeightStore
from ..engines.decoding import PromptBatch, advance, join, keep, prefill, room_left
from ..engines.engine import PromptTokenizer
from ..loading import LoadError
from .generation import Chunk, Generation, GenerationRequest, Row, next_tokens
from .mixed_model import MixedModel, NoSlotError

MAX_ROWS = 32
MAX_TOKENS = 32768
"""Prompt and answer tokens of all rows, padding included; bounds the key-value cache held in memory."""
PATIENCE_S = 5.0
ROOM = 128
"""Tokens that a cache gets room for at a time."""
_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Loading:
    """An adapter that a request waits for."""

    adapter: Adapter
    since: float = field(default_factory=time.monotonic)
    done: Future[None] = field(default_factory=Future)


class Decoder:
    """Answers requests with `mixed`, in a thread of its own from `start` to `close`."""

    def __init__(self, mixed: MixedModel, tokenizer: PromptTokenizer) -> None:
        self.mixed = mixed
        self._tokenizer = tokenizer
        self._ends = mixed.local.ends
        self._store: WeightStore | None = None
        self._waiting: deque[Generation | _Loading] = deque()
        self._rows: list[Row] = []
        self._batch: PromptBatch | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="traitroute-decoder", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return self.mixed.local.model.config.vocab_size

    @property
    def rows(self) -> int:
        """Requests in the batch now."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Requests, and adapters to be loaded, that are not in the batch yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current token; what is unanswered ends with an error."""
        self._closing = True
        self._wake()
        self._thread.join()

    def use_store(self, store: WeightStore) -> None:
        """Load adapters from `store` from now on."""
        self._store = store

    def submit(self, request: GenerationRequest) -> Generation:
        """Answer `request`; called on the event loop."""
        generation = Generation(request, wake=self._wake)
        self._enqueue(generation)
        return generation

    async def load(self, adapter: Adapter) -> None:
        """Return once the adapter is loaded, or is known to load when a request needs it.

        Raises:
            LoadError: it cannot be.
        """
        if not self.mixed.loads(adapter.weights_digest):
            loading = _Loading(adapter)
            self._enqueue(loading)
            await asyncio.wrap_future(loading.done)

    def _enqueue(self, item: Generation | _Loading) -> None:
        with self._changed:
            self._waiting.append(item)
            self._changed.notify()
        if not self.alive:
            self._end_all("the server is stopping")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._step()
            except Exception as exc:
                # The outermost handler: one request that cannot be computed must not end the server.
                _logger.exception("traitroute: a batch of %d requests failed", len(self._rows))
                self._end_rows(f"the batch failed: {type(exc).__name__}")
        self._end_all("the server is stopping")

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when the decoder is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._rows or self._waiting)
        return not self._closing

    def _step(self) -> None:
        """Let rows leave and join, and give every row its next token."""
        self._leave()
        self._admit()
        if self._batch is None:
            return
        with torch.inference_mode():
            samplers = [row.sampler for row in self._rows]
            tokens = next_tokens(self._batch.logits, samplers)
            for row, token in zip(self._rows, tokens, strict=True):
                row.take(token, self._ends)
            taken = {row: token or 0 for row, token in zip(self._rows, tokens, strict=True)}
            self._leave()
            self._advance([taken[row] for row in self._rows])

    def _advance(self, tokens: list[int]) -> None:
        if self._batch is None:
            return
        batch = self._batch
        if batch.shareable and not room_left(batch.cache):
            batch = join([batch], room=ROOM)
        given = torch.tensor(tokens, device=batch.mask.device)
        names = self._names(self._rows)
        self._batch = advance(self.mixed.model, batch, given, adapters=names)

    def _leave(self) -> None:
        """Free the rows of requests that ended or were aborted."""
        leaving = [row.ended or row.generation.aborted for row in self._rows]
        if not any(leaving):
            return
        order = compacted(leaving)
        if order and self._batch is not None:
            with torch.inference_mode():
                self._batch = keep(self._batch, order)
        self._rows = [self._rows[i] for i in order]
        if not order:
            self._batch = None

    def _admit(self) -> None:
        """Let waiting requests join where there is room, in the order they came."""
        new: list[Row] = []
        with self._changed:
            waiting = tuple(self._waiting)
        for item in waiting:
            try:
                if not self._take(item, new):
                    break
            except NoSlotError:
                if time.monotonic() - item.since > PATIENCE_S:
                    break
            else:
                with self._changed:
                    self._waiting.remove(item)
        if not new:
            return
        # From here on a failure of the batch ends them with all others.
        self._rows += new
        with torch.inference_mode():
            prompts = [row.request.prompt for row in new]
            room = min(ROOM, max(row.request.max_tokens for row in new))
            names = self._names(new)
            fresh = prefill(self.mixed.model, prompts, room=room, adapters=names)
            running = self._batch
            self._batch = fresh if running is None else join([running, fresh], room=ROOM)

    def _take(self, item: Generation | _Loading, new: list[Row]) -> bool:
        """Handle a waiting item, by adding it to `new` or otherwise; False: there is no room for it.

        Raises:
            NoSlotError: its adapter must wait for others to be out of use.
        """
        if isinstance(item, _Loading):
            self._finish_loading(item, new)
        elif not item.aborted:
            return self._take_request(item, new)
        return True

    def _finish_loading(self, loading: _Loading, new: list[Row]) -> None:
        if loading.done.cancelled():
            return
        try:
            # A crowd asks for the same few adapters, which must not drive each other out.
            if not self.mixed.loads(loading.adapter.weights_digest):
                self._load(loading.adapter, new)
        except LoadError as exc:
            _settle(loading.done, exc)
        else:
            _settle(loading.done)

    def _take_request(self, generation: Generation, new: list[Row]) -> bool:
        if not self._fits(generation.request, new):
            return False
        try:
            if generation.request.adapter is not None:
                self._load(generation.request.adapter, new)
        except LoadError as exc:
            generation.put(Chunk("", 0, error=str(exc)))
        else:
            new.append(Row(generation, self._tokenizer))
        return True

    def _load(self, adapter: Adapter, new: list[Row]) -> None:
        if self._store is None:
            raise LoadError(f"{adapter.name}: no registry offers its weights yet")
        in_use = {r.request.adapter.weights_digest for r in [*self._rows, *new] if r.request.adapter}
        try:
            self.mixed.load(adapter.weights_digest, self._store, in_use=in_use)
        except LoadError as exc:
            raise LoadError(f"{adapter.name}: {exc}") from exc

    def _fits(self, request: GenerationRequest, new: list[Row]) -> bool:
        requests = [request, *(row.request for row in [*self._rows, *new])]
        if len(requests) == 1:
            return True
        if self._batch is not None and not self._batch.shareable:
            return False
        longest = max(len(r.prompt) + r.max_tokens for r in requests)
        return len(requests) <= MAX_ROWS and len(requests) * longest <= MAX_TOKENS

    def _names(self, rows: Iterable[Row]) -> list[str] | None:
        adapters = [row.request.adapter for row in rows]
        return self.mixed.adapters_of([a.weights_digest if a else None for a in adapters])

    def _end_rows(self, message: str) -> None:
        for row in self._rows:
            if not row.ended:
                row.fail(message)
        self._rows, self._batch = [], None

    def _end_all(self, message: str) -> None:
        self._end_rows(message)
        with self._changed:
            left, self._waiting = list(self._waiting), deque()
        for item in left:
            if isinstance(item, Generation):
                item.put(Chunk("", 0, error=message))
            else:
                _settle(item.done, LoadError(message))


def _settle(done: Future[None], error: LoadError | None = None) -> None:
    """Settle a future unless nobody waits for it any more."""
    if not done.set_running_or_notify_cancel():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def compacted(leaving: Sequence[bool]) -> list[int]:
    """The rows that stay, the last ones moved into the places of those that leave, so that few rows move."""
    staying = [row for row, leaves in enumerate(leaving) if not leaves]
    order = list(range(len(staying)))
    movers = [row for row in staying if row >= len(order)]
    for place in order:
        if leaving[place]:
            order[place] = movers.pop()
    return order
