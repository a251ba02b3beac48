"""Who answers an `auto` request, and how that is told in the response's headers."""

from dataclasses import dataclass

from ...router import RoutingDecision
from ..state import BASE

RawHeaders = list[tuple[bytes, bytes]]

CHOSEN = frozenset({"adapter", "base"})
"""The kinds of choices that the router made; all others mean base."""
NO_FAULTS = CHOSEN | {"constrained", "no-text"}
"""The kinds of choices where nothing went wrong."""


@dataclass(frozen=True)
class Choice:
    """Who answers an `auto` request (None: the base model), and why.

    `kind` is the outcome in one word, of a small fixed set: `adapter` or `base` as the router chose;
    `constrained` where the request admits no adapter, `no-text` where it says nothing; else what went wrong. `low` is the low end of the
    predicted gain's interval, `seconds` what routing took; `sticky` says that the session decided;
    `unloaded` is the adapter that was chosen and could not be loaded.
    """

    adapter: str | None
    gain: float
    reason: str
    kind: str
    low: float = 0.0
    profile_version: int | None = None
    sticky: bool = False
    unloaded: str | None = None
    seconds: float | None = None
    decision: RoutingDecision | None = None

    @classmethod
    def of(cls, decision: RoutingDecision) -> "Choice":
        """The choice that a decision makes."""
        return cls(
            adapter=decision.adapter,
            gain=decision.gain,
            reason=decision.reason,
            kind="adapter" if decision.adapter else "base",
            low=decision.interval[0],
            profile_version=decision.profile_version,
            decision=decision,
        )

    @classmethod
    def base(cls, reason: str) -> "Choice":
        """The base model, for a reason that opens with its kind and a colon."""
        return cls(None, 0.0, reason, reason.partition(":")[0])

    @property
    def is_fallback(self) -> bool:
        """Whether something went wrong, so that base answers."""
        return self.kind not in NO_FAULTS

    def headers(self) -> RawHeaders:
        """The response's headers: adapter, gain, reason, and the profile's version where one decided."""
        told = {
            "adapter": self.adapter or BASE,
            "gain": f"{self.gain:+.3f}",
            "reason": self.reason,
        }
        if self.profile_version is not None:
            told["profile"] = str(self.profile_version)
        return [(f"x-traitroute-{key}".encode(), printable(text)) for key, text in told.items()]


def printable(text: str) -> bytes:
    """One line of at most 200 printable ASCII characters, as a header must be."""
    kept = "".join(c if c.isascii() and c.isprintable() else " " for c in text)
    return " ".join(kept.split())[:200].strip().encode("ascii")
