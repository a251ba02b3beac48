"""Key-value caches with room: a new token is written in place.

Transformers' `DynamicCache` copies all it holds for each new token, which took a tenth of decoding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


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
                layer.key_room[:, :, layer.length - length :],
                layer.value_room[:, :, layer.length - length :],
                length,
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
