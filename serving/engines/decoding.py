"""Read a batch of prompts once, then continue them token by token.

What prompts have in common at their start (a system message, an instruction) is read once for all. The
others are read in chunks of similar length, so that little is padding, and answered together. Where rows
belong to different adapters, `adapters` names one a row, as PEFT's `adapter_names` does.

Two parts of transformers are replaced. `DynamicCache` copies all it holds for each new token, which took a tenth of
decoding: our caches have room, so that a new token is written in place. And transformers copies keys and values out to
every query head whenever there is a mask, because CUDA kernels need it; the CPU kernel takes grouped keys as they are,
so that one decoding step over 300 tokens (9 heads on 3) costs a fifth of the eager one (docs/decisions.md).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import eager_mask

GROUPED_ATTENTION = "grouped_cpu"
"""Our attention's name in transformers' registry."""
PREFILL_TOKENS = 2048
SHARED_TOKENS = 8
"""A shorter common start is not worth a forward pass of its own."""
ENDED_SHARE = 1 / 8
"""Ended rows leave the batch once they are this share of it: moving the rest costs about a step."""


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that a model has read.

    `mask` (rows, width) marks their tokens in `cache`, `logits` (rows, vocabulary) belong to the token that
    follows. `shareable` says whether branches of `cache` may be continued under masks of one's own, and whether
    the batch may be joined to others.
    """

    cache: Any
    mask: torch.Tensor
    logits: torch.Tensor
    shareable: bool


def prefill(
    model: Any, prompts: Sequence[list[int]], *, room: int, adapters: Sequence[str] | None = None
) -> PromptBatch:
    """Read `prompts`, none of them empty; the cache gets room for `room` more tokens a row."""
    if not keeps_all_keys(model):
        return _read(model, prompts, DynamicCache(config=model.config), 0, adapters)
    # Adapters read a common start each in their own way.
    prefix = _shared_tokens(prompts) if len(set(adapters or ())) < 2 else 0
    start = DynamicCache(config=model.config)
    if prefix:
        _read(model, [prompts[0][:prefix]], start, 0, adapters and adapters[:1])
    width = max(map(len, prompts))
    cache, logits = None, []
    mask = torch.zeros(len(prompts), width, dtype=torch.long, device=model.device)
    order: list[int] = []
    for rows in _chunks(prompts):
        repeated = _repeated(model, start, len(rows))
        names = adapters and [adapters[i] for i in rows]
        part = _read(model, [prompts[i] for i in rows], repeated, prefix, names)
        if cache is None:
            cache = roomy_like(part.cache, rows=len(prompts), length=width, room=room)
        copy_rows(part.cache, cache, rows, prefix=prefix)
        mask[rows, :prefix] = 1
        rest = part.mask.shape[1] - prefix
        mask[rows, width - rest :] = part.mask[:, prefix:]
        logits.append(part.logits)
        order += rows
    assert cache is not None
    back = torch.tensor(order, device=model.device).argsort()
    return PromptBatch(cache, mask, torch.cat(logits)[back], shareable=True)


def greedy(model: Any, batch: PromptBatch, limits: Sequence[int], ends: Collection[int]) -> list[list[int]]:
    """Tokens that follow each prompt, up to its limit of `limits`, without the end token; uses up the cache."""
    outputs: list[list[int]] = [[] for _ in limits]
    rows = list(range(len(outputs)))
    open_rows = {row for row in rows if limits[row] > 0}
    while open_rows:
        tokens = batch.logits.argmax(dim=-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row not in open_rows:
                continue
            if token not in ends:
                outputs[row].append(token)
            if token in ends or len(outputs[row]) == limits[row]:
                open_rows.discard(row)
        if not open_rows:
            break
        ended = len(rows) - len(open_rows)
        if ended and ended >= ENDED_SHARE * len(rows):
            kept = [place for place, row in enumerate(rows) if row in open_rows]
            rows = [rows[place] for place in kept]
            batch, tokens = keep(batch, kept), tokens[kept]
        batch = advance(model, batch, tokens)
    return outputs


def advance(
    model: Any, batch: PromptBatch, tokens: torch.Tensor, *, adapters: Sequence[str] | None = None
) -> PromptBatch:
    """The batch one step on: `tokens` (rows,) written to its cache, which it uses up, and new logits."""
    mask = torch.cat([batch.mask, batch.mask.new_ones(len(batch.mask), 1)], dim=1)
    logits = next_logits(model, tokens[:, None], mask, batch.cache, adapters)
    return replace(batch, mask=mask, logits=logits)


def keep(batch: PromptBatch, rows: Sequence[int]) -> PromptBatch:
    """The batch of `rows` only, in that order; uses up the cache."""
    kept = torch.tensor(rows, device=batch.mask.device)
    keep_rows(batch.cache, kept)
    return replace(batch, mask=batch.mask[kept], logits=batch.logits[kept])


def join(batches: Sequence[PromptBatch], *, room: int) -> PromptBatch:
    """One batch of the rows of several shareable ones, with room for `room` more tokens a row.

    Rows end at the right; columns that no row needs are left behind.
    """
    widths = [_columns_used(batch.mask) for batch in batches]
    width = max(widths)
    parts = [last_tokens(batch.cache, n) for batch, n in zip(batches, widths, strict=True)]
    masks = [pad(batch.mask[:, -n:], (width - n, 0)) for batch, n in zip(batches, widths, strict=True)]
    logits = torch.cat([batch.logits for batch in batches])
    return PromptBatch(stacked(parts, room=room), torch.cat(masks), logits, shareable=True)


def next_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: Any, adapters: Sequence[str] | None = None
) -> torch.Tensor:
    """Logits (rows, vocabulary) after `ids` (rows, tokens), the last tokens that `mask` marks."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **({} if adapters is None else {"adapter_names": list(adapters)}),
    ).logits[:, -1]


def _columns_used(mask: torch.Tensor) -> int:
    """How many columns at the right hold every token that `mask` (rows, width) marks."""
    return mask.shape[1] - int(mask.any(dim=0).int().argmax())


def _read(
    model: Any, prompts: Sequence[list[int]], cache: Any, prefix: int, adapters: Sequence[str] | None = None
) -> PromptBatch:
    """Read what follows `prefix` tokens, which `cache` holds already, padded on the left."""
    rests = [p[prefix:] for p in prompts]
    width = max(map(len, rests))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rests], device=model.device)
    mask = torch.tensor([[1] * prefix + [0] * (width - len(r)) + [1] * len(r) for r in rests], device=model.device)
    logits = next_logits(model, ids, mask, cache, adapters)
    return PromptBatch(cache, mask, logits, shareable=False)


def _repeated(model: Any, start: Any, rows: int) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    for index, layer in enumerate(start.layers):
        if layer.get_seq_length():
            keys, values = (s.expand(rows, -1, -1, -1) for s in (layer.keys, layer.values))
            cache.update(keys, values, index)
    return cache


def _shared_tokens(prompts: Sequence[list[int]]) -> int:
    """Length of the common start, less one where it is a whole prompt: each has a token to read."""
    # What the first and the last in order have in common, all between them have.
    first, last = min(prompts), max(prompts)
    longest = min(map(len, prompts)) - 1
    length = next((n for n in range(longest) if first[n] != last[n]), longest)
    return length if len(prompts) > 1 and length >= SHARED_TOKENS else 0


def _chunks(prompts: Sequence[list[int]]) -> Iterator[list[int]]:
    chunk: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        if chunk and (len(chunk) + 1) * len(prompts[i]) > PREFILL_TOKENS:
            yield chunk
            chunk = []
        chunk.append(i)
    yield chunk


class RoomyLayer(DynamicLayer):
    """One layer's keys and values (batch, heads, capacity, size), of which `length` tokens are filled."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, key_room: torch.Tensor, value_room: torch.Tensor, length: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = key_room.dtype, key_room.device, True
        self.key_room, self.value_room = key_room, value_room
        self._fill(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens and return all keys and values, those included."""
        start = self.length
        self._fill(start + key_states.shape[-2])
        self.keys[:, :, start:] = key_states
        self.values[:, :, start:] = value_states
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens filled."""
        return self.length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows `beam_idx` of the batch, in that order."""
        self.key_room, self.value_room = self.key_room[beam_idx], self.value_room[beam_idx]
        self._fill(self.length)

    @property
    def room(self) -> int:
        """Tokens that may still be appended."""
        return self.key_room.shape[2] - self.length

    def move_rows(self, order: Sequence[int]) -> None:
        """Keep the rows `order`, each moved only where its place changes; branches are spoiled.

        A row may only move to a place before its own, whose row is not needed any more.
        """
        for room in (self.key_room, self.value_room):
            for place, row in enumerate(order):
                if place != row:
                    room[place, :, : self.length] = room[row, :, : self.length]
        self.key_room = self.key_room[: len(order)]
        self.value_room = self.value_room[: len(order)]
        self._fill(self.length)

    def rows(self, start: int, stop: int) -> "RoomyLayer":
        """A branch of some rows: it appends to the same memory, this layer's length stays."""
        return RoomyLayer(self.key_room[start:stop], self.value_room[start:stop], self.length)

    def _fill(self, length: int) -> None:
        self.length = length
        self.keys = self.key_room[:, :, :length]
        self.values = self.value_room[:, :, :length]


def roomy_like(cache: Any, *, rows: int, length: int, room: int) -> Cache:
    """An empty cache for `rows` of `length` tokens and `room` more, its layers shaped as in `cache`."""

    def empty(states: torch.Tensor) -> torch.Tensor:
        # Zeros, for a masked key that is not a number would still spoil the sum.
        return states.new_zeros(rows, states.shape[1], length + room, states.shape[3])

    return Cache(layers=[RoomyLayer(empty(layer.keys), empty(layer.values), length) for layer in cache.layers])


def copy_rows(part: Any, into: Any, rows: Sequence[int], *, prefix: int) -> None:
    """Write the rows of `part` to `rows` of `into`: `prefix` tokens at the left, the rest at the right."""
    for source, target in zip(part.layers, into.layers, strict=True):
        rest = source.get_seq_length() - prefix
        for states, place in ((source.keys, target.keys), (source.values, target.values)):
            for row, row_states in zip(rows, states, strict=True):
                place[row, :, :prefix] = row_states[:, :prefix]
                place[row, :, place.shape[2] - rest :] = row_states[:, prefix:]


def keep_rows(cache: Any, order: torch.Tensor) -> None:
    """Keep the rows `order` (rows,) of a cache, in that order."""
    places = order.tolist()
    moves = [(place, row) for place, row in enumerate(places) if place != row]
    # Few moves into rows that go are cheaper than a copy of everything.
    in_place = all(row > place and place not in places for place, row in moves)
    if in_place and all(isinstance(layer, RoomyLayer) for layer in cache.layers):
        for layer in cache.layers:
            layer.move_rows(places)
    else:
        cache.reorder_cache(order)


def last_tokens(cache: Any, length: int) -> Cache:
    """The last `length` tokens of every row of a roomy cache, in the same memory."""
    return Cache(
        layers=[
            RoomyLayer(
                layer.key_room[:, :, layer.length - length :], layer.value_room[:, :, layer.length - length :], length
            )
            for layer in cache.layers
        ]
    )


def stacked(caches: Sequence[Any], *, room: int) -> Cache:
    """A copy of the rows of several roomy caches, all ending at the right, and `room` more tokens."""
    length = max(cache.get_seq_length() for cache in caches)
    rows = [len(cache.layers[0].keys) for cache in caches]
    whole = roomy_like(caches[0], rows=sum(rows), length=length, room=room)
    start = 0
    for cache, count in zip(caches, rows, strict=True):
        layers: Any = whole.layers
        for source, target in zip(cache.layers, layers, strict=True):
            place = (slice(start, start + count), slice(None), slice(length - source.length, None))
            target.keys[place] = source.keys
            target.values[place] = source.values
        start += count
    return whole


def room_left(cache: Any) -> int:
    """Tokens that every row of a roomy cache may still take."""
    return cache.layers[0].room


def branch(cache: Any, start: int, stop: int) -> Cache:
    """Rows `start` to `stop` of a roomy cache, to be continued without touching its tokens."""
    return Cache(layers=[layer.rows(start, stop) for layer in cache.layers])


def keeps_all_keys(model: Any) -> bool:
    """Whether every layer keeps all keys, behind the attention interface that takes masks of ours.

    Only then may tokens of several candidates share a cache and a mask; models with sliding windows,
    recurrent layers or attention of their own do not qualify.
    """
    layers = DynamicCache(config=model.config).layers
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and len(layers) > 0
        and all(type(layer) is DynamicLayer for layer in layers)
    )


def use_grouped_attention(model: Any) -> None:
    """Let `model` attend with `grouped_attention` where transformers knows that SDPA fits it."""
    if not getattr(model, "_supports_sdpa", False):
        return
    AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
    # An additive mask: the kernel would convert a boolean one again in every layer.
    AttentionMaskInterface.register(GROUPED_ATTENTION, eager_mask)
    model.set_attn_implementation(GROUPED_ATTENTION)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from `query` (batch, heads, tokens, size) to `key` and `value` with fewer heads.

    Where there is one token, heads that share keys are asked together, as tokens of one head: the kernel reads the keys
    once for each head otherwise, which in bfloat16 was most of a decoding step (docs/decisions.md).
    """
    asked = query.reshape(len(query), key.shape[1], -1, query.shape[3]) if query.shape[2] == 1 else query
    output = scaled_dot_product_attention(asked, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True)
    return output.reshape(query.shape).transpose(1, 2).contiguous(), None
