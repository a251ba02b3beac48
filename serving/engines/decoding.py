"""Read a batch of prompts once, then continue them token by token.

What prompts have in common at their start (a system message, an instruction) is read once for all. The
others are read in chunks of similar length, so that little is padding, and answered together. Where rows
are of different adapters, `adapters` names one a row, as PEFT's `adapter_names` does.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache

from .attention import keeps_all_keys
from .kv_cache import copy_rows, keep_rows, last_tokens, roomy_like, stacked

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


def greedy(model: Any, batch: PromptBatch, max_tokens: int, ends: Collection[int]) -> list[list[int]]:
    """Tokens that follow each prompt, up to `max_tokens`, without the end token; uses up the cache."""
    outputs: list[list[int]] = [[] for _ in batch.mask]
    rows = list(range(len(outputs)))
    open_rows = set(rows)
    for step in range(max_tokens):
        tokens = batch.logits.argmax(dim=-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if token in ends:
                open_rows.discard(row)
            elif row in open_rows:
                outputs[row].append(token)
        if not open_rows or step + 1 == max_tokens:
            break
        ended = len(rows) - len(open_rows)
        if ended and ended >= ENDED_SHARE * len(rows):
            kept = [place for place, row in enumerate(rows) if row in open_rows]
            rows = [rows[place] for place in kept]
            batch, tokens = keep(batch, kept), tokens[kept]
        batch = advance(model, batch, tokens)
    return outputs


def advance(
    model: Any,
    batch: PromptBatch,
    tokens: torch.Tensor,
    *,
    adapters: Sequence[str] | None = None,
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
    masks = [
        torch.nn.functional.pad(batch.mask[:, -n:], (width - n, 0)) for batch, n in zip(batches, widths, strict=True)
    ]
    logits = torch.cat([batch.logits for batch in batches])
    return PromptBatch(stacked(parts, room=room), torch.cat(masks), logits, shareable=True)


def next_logits(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    cache: Any,
    adapters: Sequence[str] | None = None,
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
    model: Any,
    prompts: Sequence[list[int]],
    cache: Any,
    prefix: int,
    adapters: Sequence[str] | None = None,
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
