"""The newest profile as the skills API needs it, and the tokens of decisions made with it.

A token is `PAYLOAD.SIGNATURE`, both URL-safe base64 (RFC 4648, section 5) without padding. The payload is a JSON list
that anybody can read; the signature, 16 bytes of HMAC-SHA-256, proves that a server of the registry made it.
"""

import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from ..adapters import (
    Adapter,
    Feedback,
    FeedbackSource,
    FittedTraits,
    InputError,
    Location,
    Registry,
    RegistryError,
    StoredProfile,
    TrainingNote,
)
from ..router import NOVEL, Router, RoutingDecision
from .canaries import Entry
from .experiment import Arm
from .measured import Measured

Propensity = Annotated[float, Field(gt=0, le=1)]

_FORMAT, _FORMAT_OF_CANARIES = 3, 4
_FORMAT_1 = {"adapter", "gain", "level", "version", "id"}
_DIGITS = 16
_PAYLOAD_2 = tuple[Literal[2], str | None, float, float | None, int, str | None, int, str]
_PAYLOAD_3 = tuple[
    # What format 2 has, then what it lacks.
    *(Literal[3], str | None, float, float | None, int, str | None, int, str),
    *(Propensity, str | None, Arm, str | None, str),
]
_PAYLOAD_4 = tuple[
    # What format 3 has, then the entry of a canary.
    *(Literal[4], str | None, float, float | None, int, str | None, int, str),
    *(Propensity, str | None, Arm, str | None, str),
    *(str, Propensity, bool),
]
_PAYLOAD: TypeAdapter[tuple[Any, ...]] = TypeAdapter(_PAYLOAD_2 | _PAYLOAD_3 | _PAYLOAD_4)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProfileSnapshot:
    """The newest profile's router, traits and measured gains, with the adapters that may be served, by name.

    `trait_scores` (adapters, components) are of the adapters in `measured`. `tasks` are the specifications of the
    profiled tasks, `training` what is known of adapters that were not trained here, `everyday` what adapters lose on
    everyday requests, where that was measured, `key` signs decision tokens, `location` is the registry's.
    """

    adapters: Mapping[str, Adapter]
    router: Router
    base_model: str
    traits: FittedTraits
    trait_scores: NDArray[np.float64]
    tasks: Mapping[str, Mapping[str, Any]]
    measured: Measured
    key: bytes
    location: Location
    training: Mapping[str, TrainingNote] = field(default_factory=dict)
    everyday: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        registry: Registry,
        router: Router,
        *,
        profile: StoredProfile | None = None,
        adapters: Sequence[Adapter] | None = None,
    ) -> Self | None:
        """Read what skills need beside the router; None where the profile's summary cannot be read.

        The router's `profile` and the servable `adapters` are read too unless they are given.
        """
        profile = profile or registry.profile(router.version)
        try:
            summary = profile.summary
        except RegistryError as exc:
            # It costs the skills, not the routing.
            _logger.warning("traitroute: no skills API, since %s", exc)
            return None
        return cls(
            adapters={a.name: a for a in (registry.servable() if adapters is None else adapters)},
            router=router,
            base_model=summary.base_model,
            traits=summary.traits,
            trait_scores=summary.trait_scores,
            tasks=registry.tasks(),
            measured=Measured.read(summary),
            key=signing_key(profile),
            location=registry.location,
            training=summary.training,
            everyday=summary.everyday,
        )

    def only(self, adapters: Mapping[str, Adapter]) -> Self:
        """The snapshot with no other adapters than these.

        A replacement that waits to be measured, NAME@VERSION, is no skill yet.
        """
        return replace(self, adapters={n: a for n, a in adapters.items() if "@" not in n})

    def seen_by(self, admits: Callable[[str], bool], router: Router) -> Self:
        """The snapshot without a name or a number of the adapters that `admits` does not; `router` chooses no other."""
        rows = [i for i, name in enumerate(self.measured.adapters) if admits(name)]
        return replace(
            self,
            router=router,
            adapters={n: a for n, a in self.adapters.items() if admits(n)},
            measured=self.measured.take(rows),
            trait_scores=self.trait_scores[rows],
            training={n: note for n, note in self.training.items() if admits(n)},
            everyday={n: lost for n, lost in self.everyday.items() if admits(n)},
        )

    @property
    def version(self) -> int:
        """The profile's version."""
        return self.router.version

    def token(
        self,
        decision: RoutingDecision,
        adapter: str | None,
        gain: float,
        *,
        arm: Arm = "auto",
        propensity: float = 1.0,
        conversation: str = "",
        entry: Entry | None = None,
    ) -> str | None:
        """The token of a decision by which `adapter` (None: base) answers, with how it was drawn.

        There is none where another profile made it, or the adapter is one no more.
        """
        served = self.adapters.get(adapter) if adapter is not None else None
        if decision.profile_version != self.version or (adapter is not None and served is None):
            return None
        near = decision.nearest_tasks[0].task if decision.nearest_tasks else None
        tasks = self.measured.tasks
        level = float(self.measured.base[tasks.index(near)]) if near in tasks else None
        weights = served.weights_digest if served else ""
        token = DecisionToken.of(adapter, gain, level, self.version, weights)
        drawn = replace(
            token,
            arm=arm,
            policy=adapter if arm in ("auto", "canary") else decision.adapter,
            propensity=float(f"{propensity:.6g}"),
            # What is like nothing profiled teaches nothing of the task that is least unlike it.
            kind=near if decision.novelty < NOVEL else None,
            conversation=conversation,
            canary=entry.canary if entry else None,
            share=entry.share if entry else 1.0,
            given=entry.given if entry else False,
        )
        return drawn.sign(self.key)


class TokenError(InputError):
    """A text is no decision token."""


class OldTokenError(TokenError):
    """A text is a decision token of the first format, which states neither when it was made nor by which weights."""


@dataclass(frozen=True)
class DecisionToken:
    """Which adapter was chosen (None: base) by which profile version, with what predicted gain.

    `level` is the score that the base model alone was measured to have on the task most similar to the request; with
    the gain it is the expected reward. `weights` are the first digits of the digest of the adapter's weights; `made` is
    in seconds since 1970.

    `propensity` is the probability, with which what ran would have let this adapter, or base, answer this request;
    `policy` whom the policy would have chosen (None: base): the profile, and of two that are about as good what was
    loaded. `arm` says why another answers. `kind` is the profiled task that is nearest to the request (None: it is like
    nothing profiled). `conversation` is a keyed hash of what was drawn on, so that the outcomes of one conversation
    count as one; empty where nothing was drawn, as for a selection by the skills API, and in tokens of the second
    format, which know none of this paragraph.

    Where the conversation is one that `canary` would win, it was drawn for it with the probability `share`, and `given`
    says whether it was; `propensity` and `policy` are what they are given that.
    """

    adapter: str | None
    gain: float
    level: float | None
    version: int
    weights: str | None = None
    made: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    propensity: float = 1.0
    policy: str | None = None
    arm: Arm = "auto"
    kind: str | None = None
    conversation: str = ""
    canary: str | None = None
    share: float = 1.0
    given: bool = False

    def __post_init__(self) -> None:
        # Where the policy was followed, the token does not spell it out a second time.
        if self.arm == "auto":
            object.__setattr__(self, "policy", self.adapter)

    @classmethod
    def of(cls, adapter: str | None, gain: float, level: float | None, version: int, weights: str) -> Self:
        """The token of a decision made now, by the digest of the `weights` that answer (empty: base)."""
        rounded = None if level is None else round(level, 4)
        return cls(adapter, round(gain, 4), rounded, version, weights[:_DIGITS] or None)

    def is_of(self, weights_digest: str) -> bool:
        """Whether these weights answered."""
        return bool(self.weights) and self.weights == weights_digest[:_DIGITS]

    def rewarded(self, token: str, reward: float, *, source: FeedbackSource, reporter: str | None = None) -> Feedback:
        """What a source says now of this decision, whose token as text is `token`, as the registry keeps it."""
        return Feedback(
            token=token,
            source=source,
            adapter=self.adapter,
            predicted_gain=self.gain,
            profile_version=self.version,
            reward=reward,
            created_at=datetime.fromtimestamp(self.made, UTC),
            rewarded_at=datetime.now(UTC),
            reporter=reporter,
        )

    def sign(self, key: bytes) -> str:
        """The token as text, signed with `key`."""
        fields = vars(self) | ({"policy": None} if self.arm == "auto" else {})
        if self.canary is None:
            fields = {name: value for name, value in fields.items() if name not in ("canary", "share", "given")}
        form = _FORMAT if self.canary is None else _FORMAT_OF_CANARIES
        payload = json.dumps([form, *fields.values()], separators=(",", ":")).encode()
        return f"{_encoded(payload)}.{_encoded(_signature(payload, key))}"

    @classmethod
    def read(cls, token: str) -> Self:
        """Read a token without checking its signature.

        Raises:
            OldTokenError: it has the first format.
            TokenError: it is no token.
        """
        try:
            payload = _decoded(token.partition(".")[0])
            if payload.startswith(b"{") and json.loads(payload).keys() == _FORMAT_1:
                raise OldTokenError("this decision token is of an older version of TraitRoute")
            return cls(*_PAYLOAD.validate_json(payload, strict=True)[1:])
        except (ValueError, RecursionError) as exc:
            raise TokenError("this is no decision token") from exc

    @classmethod
    def verify(cls, token: str, key: bytes) -> Self:
        """Read a token that was signed with `key`.

        Raises:
            TokenError: it was not.
        """
        try:
            payload, signature = map(_decoded, token.split("."))
        except ValueError as exc:
            raise TokenError("this is no decision token") from exc
        # Base64 has several spellings of the same bytes; only the one that was given out counts.
        same = token == f"{_encoded(payload)}.{_encoded(signature)}"
        if not same or not hmac.compare_digest(_signature(payload, key), signature):
            raise TokenError("no server of this registry made this decision token")
        return cls.read(token)


def signing_key(profile: StoredProfile) -> bytes:
    """The key that signs the decisions of a profile.

    It is derived from the profile's bytes, which every server of the registry reads and no client is shown. So any
    replica can verify a decision of any other, and no secret has to be distributed.
    """
    return hashlib.sha256(b"traitroute decision token\0" + profile.data).digest()


def _signature(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)[:16]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
