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

    return Cache(
        layers=[
            RoomyLayer(empty(layer.keys), empty(layer.values), length) for layer in cache.layers
        ]
    )


def copy_rows(part: Any, into: Any, rows: Sequence[int], *, prefix: int) -> None:
    """Write the rows of `part` to `rows` of `into`: `prefix` tokens at the left, the rest at the right."""
    for source, target in zip(part.layers, into.layers, strict=True):
        rest = source.get_seq_length() - prefix
        for states, place in ((source.keys, target.keys), (source.values, target.values)):
            for row, row_states in zip(rows, states, strict=True):
                place[row, :, :prefix] = row_states[:, :prefix]
                place[row, :, place.shape[2] - rest :] = row_states[:, prefix:]


def branch(cache: Any, start: int, stop: int) -> Cache:
    """Rows `start` to `stop` of a roomy cache, to be continued without touching its tokens."""
    return Cache(layers=[layer.rows(start, stop) for layer in cache.layers])
