"""Canaries: adapters that get a share of the conversations they would win, drawn by a keyed hash as control groups are.

Which conversations those are must not depend on the draw, or nothing could be compared. So a request is routed among
all adapters and canaries, without those that a canary is to replace. Where a canary comes first, the conversation is
one of its *entries*, drawn or not. Where it is not drawn, and for all other requests, no canary answers: they are
routed as if there were none, and whom that chooses is the incumbent, which may be base. A larger share keeps the
conversations that a smaller one drew, and each canary has draws of its own.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..adapters import Adapter, AdapterState
from ..router import RoutingDecision


@dataclass(frozen=True)
class Entry:
    """A conversation that the canary would win: `given` says whether it was drawn, with the probability `share`."""

    canary: str
    share: float
    given: bool


@dataclass(frozen=True)
class Canary:
    """An adapter's name, the share of its conversations that it gets, in (0, 1), and the digest of its weights.

    It wins them in the place of the adapter that it `replaces`.
    """

    name: str
    share: float
    weights: str
    replaces: str | None = None

    @classmethod
    def among(cls, adapters: Mapping[str, Adapter]) -> dict[str, "Canary"]:
        """Those of some adapters that are ready and get a share, by name."""
        ready = (a for a in adapters.values() if a.state is AdapterState.READY)
        return {a.name: cls(a.name, a.canary, a.weights_digest, a.replaces) for a in ready if a.canary}

    def is_given(self, lot: bytes) -> bool:
        """Whether the conversation with this lot is drawn."""
        digest = hashlib.sha256(lot + self.weights.encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64 < self.share


def route_with(
    canaries: Mapping[str, Canary],
    lot: bytes,
    route: Callable[..., RoutingDecision],
    options: Mapping[str, Any],
    names: Collection[str],
) -> tuple[RoutingDecision, Entry | None]:
    """The decision on a request of the conversation with this lot, and the entry that it is.

    `route` takes `options` as `Router.route` does, and chooses among the adapters `names` and the canaries.
    """
    among = options.get("among")
    admitted = frozenset((*names, *canaries) if among is None else among)
    # What is loaded depends on earlier draws, so it must not decide whose entry a conversation is.
    alone = {option: value for option, value in options.items() if option not in ("held", "worth")}
    replaced = {canary.replaces for canary in canaries.values()}
    # Of this decision nothing else is looked at.
    first = route(**{**alone, "among": admitted - replaced, "explain": False, "ranked": 1}).adapter
    canary = canaries.get(first or "")
    entry = canary and Entry(canary.name, canary.share, canary.is_given(lot))
    if canary is None or entry is None or not entry.given:
        return route(**{**options, "among": admitted - canaries.keys()}), entry
    others = canaries.keys() - {canary.name}
    return route(**{**alone, "among": admitted - others - {canary.replaces}}), entry
