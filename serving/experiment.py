"""What is tried on live traffic, off by default: a control group that base answers, and now and then the second choice.

What is drawn is a *conversation*, so that none changes sides: its session's key where it has one, else its first user
turn with the digest of the API key. The draw is an HMAC of that with a key derived from the registry's secret, which is
made once with the registry, is known to every server of it, and to no client, and stays the same when the profile is
fitted again. So all processes and replicas agree without any state, and nobody can compute a side in advance. A larger
share keeps whom a smaller one drew. Who starts a new conversation, by another first turn or session key, is drawn anew:
a client cannot choose its side, but it can try again.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, Self

from ..adapters import FeedbackSource, InputError
from ..router import RoutingDecision
from .judge import Judge

Arm = Literal["auto", "control", "second", "canary"]
"""How a request came to its answerer: by the policy, held back for the control group, to try the second choice, or by
the policy where a canary was drawn.
"""

HOLDBACK_VARIABLE, EXPLORE_VARIABLE = "TRAITROUTE_HOLDBACK", "TRAITROUTE_EXPLORE"
OUTCOMES_VARIABLE, GRADED_VARIABLE = "TRAITROUTE_OUTCOMES", "TRAITROUTE_JUDGE_SHARE"
MOST_HELD_BACK, MOST_EXPLORED = 0.5, 0.2
GRADED = 0.01
"""The share of requests whose answers a judge grades, where it is not set."""
PURPOSE = b"control group"
"""What the registry's key for draws is derived for."""
AUTOMATIC = (FeedbackSource.FORMAT, FeedbackSource.ANSWERED, FeedbackSource.JUDGE)
"""The outcomes that a server can report by itself."""


@dataclass(frozen=True)
class Answerer:
    """Who may answer a request (None: base), with its predicted gain over base and the gain's interval."""

    adapter: str | None = None
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0


BASE_MODEL = Answerer()


@dataclass(frozen=True)
class Draw:
    """The side on which a conversation, named by a hash, is drawn: where there is no second choice, second is auto.

    Canaries are drawn by its `lot`, which is as secret as the key.
    """

    side: Arm
    conversation: str
    lot: bytes = b""


@dataclass(frozen=True)
class Drawn:
    """Who answers and by which arm, and the `propensity`: the probability with which this answerer was to answer."""

    answerer: Answerer
    arm: Arm
    propensity: float
    conversation: str


@dataclass(frozen=True)
class Experiment:
    """The share of conversations that base answers, the share of the others that may try the second choice, and which
    outcomes of its answers the server reports by itself; `judge` grades them, where that is one of them.
    """

    holdback: float = 0.0
    explore: float = 0.0
    outcomes: frozenset[FeedbackSource] = frozenset()
    judge: Judge | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """What the operator set.

        Raises:
            InputError: a share is no number or out of range, an outcome is none that a server can report, or the judge
                that one needs is not named.
        """
        outcomes = _outcomes(os.environ.get(OUTCOMES_VARIABLE, ""))
        return cls(
            _share(HOLDBACK_VARIABLE, most=MOST_HELD_BACK),
            _share(EXPLORE_VARIABLE, most=MOST_EXPLORED),
            outcomes,
            Judge.from_environment(_share(GRADED_VARIABLE, most=1.0, usual=GRADED))
            if FeedbackSource.JUDGE in outcomes
            else None,
        )

    def holding_back(self, share: float | None) -> Self:
        """The same with another share for the control group (None: with this one's own)."""
        return self if share is None else replace(self, holdback=share)

    def draw(self, key: bytes, conversation: bytes) -> Draw:
        """Draw a conversation with the registry's `key`: twice independently, named by a third part, with a lot."""
        digest = hmac.digest(key, conversation, hashlib.sha256)
        first, second = (int.from_bytes(part) / 2**64 for part in (digest[:8], digest[8:16]))
        side: Arm = "control" if first < self.holdback else "second" if second < self.explore else "auto"
        return Draw(side, base64.urlsafe_b64encode(digest[16:24]).rstrip(b"=").decode("ascii"), digest[24:])

    def assign(self, draw: Draw, decision: RoutingDecision, *, least_gain: float | None = None) -> Drawn:
        """Who answers a request of a conversation that was drawn; `least_gain` is the request's own constraint."""
        first, second = _policy(decision), second_choice(decision, least_gain) if self.explore else None
        chosen = {"control": BASE_MODEL, "second": second or first, "auto": first}[draw.side]
        arm = "auto" if draw.side == "second" and second is None else draw.side
        explored = self.explore if second is not None else 0.0
        ways = (
            (BASE_MODEL, self.holdback),
            (first, (1 - self.holdback) * (1 - explored)),
            (second, (1 - self.holdback) * explored),
        )
        # Base may answer in more than one way.
        propensity = sum(share for way, share in ways if way is not None and way.adapter == chosen.adapter)
        return Drawn(chosen, arm, min(propensity, 1.0), draw.conversation)


def conversation_of(*, session: str | None, first_turn: str, client: bytes) -> bytes:
    """What identifies a conversation: its session's key, else its first user turn and the digest of the API key."""
    if session is not None:
        return b"session\0" + session.encode("utf-8", "surrogatepass")
    return b"turn\0" + client + b"\0" + first_turn.encode("utf-8", "surrogatepass")


def second_choice(decision: RoutingDecision, least_gain: float | None = None) -> Answerer | None:
    """The runner-up, where its interval overlaps that of the choice; None where trying it would be a known loss.

    An adapter must be expected to gain, and surely more than `least_gain` where the request asks for that. The ranking
    of a decision holds none that the request does not admit.
    """
    first = _policy(decision)
    best = next((a for a in decision.ranking if a.adapter != first.adapter), None)
    if best is None or best.gain <= 0:
        return BASE_MODEL if first.adapter is not None and first.low <= 0 else None
    if best.high < first.low or first.high < best.low or (least_gain is not None and best.low <= least_gain):
        return None
    return Answerer(best.adapter, best.gain, best.low, best.high)


def _policy(decision: RoutingDecision) -> Answerer:
    return Answerer(decision.adapter, decision.gain, *decision.interval)


def _share(variable: str, *, most: float, usual: float = 0.0) -> float:
    given = os.environ.get(variable, "").strip()
    try:
        share = float(given) if given else usual
    except ValueError:
        share = -1.0
    # Written so that NaN is refused too.
    if not 0 <= share <= most:
        raise InputError(f"{variable} is {given!r}: give a share from 0 (off) to {most:g}, as in 0.02")
    return share


def _outcomes(given: str) -> frozenset[FeedbackSource]:
    names: Collection[str] = [name.strip() for name in given.split(",") if name.strip()]
    known = {source.value: source for source in AUTOMATIC}
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{OUTCOMES_VARIABLE} names {unknown[0][:64]!r}: give {', '.join(known)}, or leave it out")
    return frozenset(known[name] for name in names)
