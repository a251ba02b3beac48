"""Proof that a server applies an adapter: the probe is read through the server itself, each time it loads one.

There are three verdicts. `applied`: the probe changes by more than noise. `idle`: it does not, and nothing speaks for
the adapter, so it is not served: it would answer as the base model under its own name. `unproven`: the probe could not
be read, which proves nothing, or it is blind to this adapter. It counts as blind where the adapter was measured, and so
changed answers, while the probe showed no clear change then either.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Self, TypeVar

from ..adapters import Adapter, AdapterState, TraitRouteError
from .engines.probe import TEXTS, Distribution, Effect, Reading, difference

PROBE_S = 20.0
"""How long a load may wait for the probe; an engine that is overloaded or dead proves nothing."""
CLEARLY = 10.0
"""What changed the probe by so many thresholds when it was measured would change it here, if it were applied."""

Model = TypeVar("Model")


class Verdict(StrEnum):
    """Whether an adapter changes what the server answers."""

    APPLIED = "applied"
    IDLE = "idle"
    UNPROVEN = "unproven"


@dataclass(frozen=True)
class Proof:
    """A verdict with its reason; `effect` is what the probe showed, where it could be read."""

    verdict: Verdict
    reason: str
    effect: Effect | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the adapter is not to be served."""
        return self.verdict is Verdict.IDLE

    @classmethod
    def of(cls, adapter: Adapter, found: Effect | str) -> Self:
        """Judge what was `found`: an effect, or why the probe could not be read."""
        if isinstance(found, str):
            return cls(Verdict.UNPROVEN, f"the probe could not be read: {found}")
        if found.is_shown:
            return cls(Verdict.APPLIED, f"a change of {found}", found)
        measured = Effect.measured(adapter)
        blind = measured is None or measured.nats < CLEARLY * found.threshold
        if adapter.state is AdapterState.READY and blind:
            return cls(Verdict.UNPROVEN, f"the probe does not show what it changes: {found}", found)
        return cls(Verdict.IDLE, f"asked for it, this server answers as base ({found})", found)


class Prover(Generic[Model]):
    """Reads the probe from one server; `ask` gives what it says of one text, by an adapter or the base model (None)."""

    def __init__(self, ask: Callable[[Model | None, str], Awaitable[Distribution]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._base: Reading | None = None
        self._noise = 0.0

    async def read(self, model: Model) -> Effect | str:
        """The effect of an adapter, or why it cannot be told."""
        try:
            async with asyncio.timeout(PROBE_S):
                before = await self._base_alone()
                # At the same time, so that the traffic of the moment disturbs both, and shows in the noise.
                base, adapted = await asyncio.gather(self._together(None), self._together(model))
                self._noise = max(self._noise, difference(before, base))
                return Effect(difference(base, adapted), self._noise)
        except TimeoutError:
            return f"no answer in {PROBE_S:g} s"
        except TraitRouteError as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001 - engines fail in ways of their own, and none of them is a proof
            return type(exc).__name__

    async def _base_alone(self) -> Reading:
        """What the base model says where each text is read alone; asked for once."""
        async with self._lock:
            if self._base is None:
                self._base = [await self._ask(None, text) for text in TEXTS]
            return self._base

    async def _together(self, model: Model | None) -> Reading:
        return await asyncio.gather(*(self._ask(model, text) for text in TEXTS))
