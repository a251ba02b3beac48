"""Keeps a few texts of requests that recur and that nothing profiled is like: encrypted, for some hours, and only where
the operator gives a key.

    TRAITROUTE_SAMPLE_KEY          Fernet keys (`traitroute samples key`), separated by spaces: the first one encrypts,
                                   all of them decrypt
    TRAITROUTE_SAMPLE_SHARE=0.1    the share of the requests that nothing is like which is looked at
    TRAITROUTE_SAMPLE_HOURS=72     how long a text is kept

A request is stored once enough others are like it: until then it waits in this process's memory, for an hour at most.
How like two requests are is what routing says of a request and a profiled kind (`router/kinds.py`). A tenant's requests
are looked at only where the tenants' file says `samples = true`. No text is logged.
"""

import os
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import DemandWindow, InputError, Registry, Sample
from ...router import RoutingDecision, RoutingProfile
from ...router.kinds import unit
from ...router.recurring import ALIKE
from ..snapshot import RegistrySnapshot

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

Array = NDArray[np.float64]
KEY, SHARE, HOURS = (f"TRAITROUTE_SAMPLE_{name}" for name in ("KEY", "SHARE", "HOURS"))
USUAL_SHARE, USUAL_HOURS = 0.1, 72.0
MOST_HOURS = 24 * 30.0
EACH, IN_ALL = 60, 600
"""So many texts are kept of a kind, and of all."""
RECURS = 8
"""So many requests that are alike, no two of them the same, are a kind."""
WAITING, WAITS_S = 200, 3600.0
LONGEST = 16_000
"""Characters: a judge is shown no more of a request, and longer ones are not kept."""
SAME = 0.998
"""Cosine of the words of two requests from which on they are one request that came twice."""


@dataclass(frozen=True)
class SampleKeys:
    """Encrypts and decrypts texts."""

    fernet: "MultiFernet" = field(repr=False)

    @classmethod
    def from_environment(cls) -> Self | None:
        """The keys that the operator gave; None without any.

        Raises:
            InputError: what is given is no key, or the library is missing; the message does not repeat the key.
        """
        given = os.environ.get(KEY, "").split()
        if not given:
            return None
        if find_spec("cryptography") is None:
            raise InputError(f"{KEY} is set, and texts are encrypted with an extra: pip install 'traitroute[samples]'")
        from cryptography.fernet import Fernet, MultiFernet

        try:
            return cls(MultiFernet([Fernet(key) for key in given]))
        except ValueError:
            raise InputError(
                f"{KEY} holds something that is no key: give keys of `traitroute samples key`, separated by spaces"
            ) from None

    @staticmethod
    def new_key() -> str:
        """A new key.

        Raises:
            ImportError: the library is missing.
        """
        try:
            from cryptography.fernet import Fernet
        except ImportError as exc:
            raise ImportError("texts are encrypted with an extra: pip install 'traitroute[samples]'") from exc
        return Fernet.generate_key().decode()

    def encrypt(self, text: str) -> bytes:
        """The text as it is stored."""
        return self.fernet.encrypt(text.encode("utf-8", "surrogatepass"))

    def decrypt(self, stored: bytes) -> str | None:
        """The text; None where it was encrypted by another key, or is damaged."""
        from cryptography.fernet import InvalidToken

        try:
            return self.fernet.decrypt(stored).decode("utf-8", "surrogatepass")
        except (InvalidToken, UnicodeDecodeError):
            return None


@dataclass(frozen=True)
class _Waiting:
    """A request that others may turn out to be like."""

    text: str = field(repr=False)
    features: Array = field(repr=False)
    profile_version: int
    tenant: str | None
    since: float


class Sampler:
    """Looks at a share of what is routed, and keeps what recurs; called from any thread."""

    def __init__(self, keys: SampleKeys, share: float = USUAL_SHARE, hours: float = USUAL_HOURS) -> None:
        self._keys, self._share, self._hours = keys, share, hours
        self._lock = threading.Lock()
        # Which requests are looked at decides nothing that has to be repeated.
        self._random = random.Random()
        self._waiting: deque[_Waiting] = deque(maxlen=WAITING)
        self._profile: RoutingProfile | None = None

    @classmethod
    def from_environment(cls) -> Self | None:
        """The sampler that the operator asked for; None where there is no key.

        Raises:
            InputError: a variable is wrong.
        """
        if (keys := SampleKeys.from_environment()) is None:
            return None
        return cls(keys, _number(SHARE, USUAL_SHARE, most=1.0), _number(HOURS, USUAL_HOURS, most=MOST_HOURS))

    def see(self, text: str, decision: RoutingDecision, snapshot: RegistrySnapshot) -> None:
        """Look at a request: it waits for others that are like it, where nothing profiled is."""
        profile, tenant = snapshot.profile, snapshot.tenant
        if profile is None or not decision.is_new or decision.everyday >= 0.5 or len(text) > LONGEST:
            return
        if (tenant.name and not tenant.samples) or self._random.random() >= self._share:
            return
        waiting = _Waiting(
            text, profile.features.row(text), decision.profile_version, tenant.name or None, time.monotonic()
        )
        with self._lock:
            self._profile = profile
            self._waiting.append(waiting)

    def keep(self, registry: Registry) -> int:
        """Store what recurs of the requests that wait, and return how many were stored.

        Raises:
            DatabaseError, RegistryError: the registry cannot be read or written.
        """
        with self._lock:
            waiting, profile = list(self._waiting), self._profile
        if not waiting or profile is None:
            return 0
        # Features of another fit cannot be compared.
        lineage = frozenset(registry.lineage())
        oldest = time.monotonic() - WAITS_S
        fresh = [each for each in waiting if each.profile_version in lineage and each.since >= oldest]
        known: dict[str, list[Array]] = {}
        for sample in registry.samples():
            if sample.profile_version in lineage:
                known.setdefault(sample.kind, []).append(sample.row())
        kinds: list[str | None] = []
        if fresh:
            rows = np.array([each.features for each in fresh])
            kinds = recurring(rows, profile, {kind: np.array(of_kind) for kind, of_kind in known.items()})
        samples = [self._sample(each, kind) for each, kind in zip(fresh, kinds, strict=True) if kind]
        stored = registry.put_samples(samples, each=EACH, in_all=IN_ALL) if samples else 0
        left = {id(each) for each, kind in zip(fresh, kinds, strict=True) if kind is None}
        with self._lock:
            # What came meanwhile stays; what was stored, is known already or has waited too long goes.
            seen = {id(each) for each in waiting}
            kept = [each for each in self._waiting if id(each) not in seen or id(each) in left]
            self._waiting = deque(kept, maxlen=WAITING)
        return stored

    def _sample(self, waiting: _Waiting, kind: str) -> Sample:
        now = datetime.now(UTC)
        return Sample(
            kind=kind,
            created_at=now,
            expires_at=now + timedelta(hours=self._hours),
            profile_version=waiting.profile_version,
            tenant=waiting.tenant,
            features=DemandWindow.pack([waiting.features]),
            text=self._keys.encrypt(waiting.text),
        )


def recurring(rows: Array, profile: RoutingProfile, known: Mapping[str, Array]) -> list[str | None]:
    """Of which recurring kind requests with features (n, p) are: a `known` one, by its requests' features, or a new
    one; empty for a request that came before, None for one that is like too few others."""
    kinds: list[str | None] = [None] * len(rows)
    words = unit(profile.features.split(rows)[0])
    came = [np.triu(words @ words.T, k=1).max(axis=0, initial=0.0)]
    if known:
        centers = np.array([each.mean(axis=0) for each in known.values()])
        near, names = likeness_to(rows, centers, profile), list(known)
        for i in np.flatnonzero(near.max(axis=1) > ALIKE):
            kinds[i] = names[near[i].argmax()]
        came += [(words @ unit(profile.features.split(each)[0]).T).max(axis=1) for each in known.values()]
    for i in np.flatnonzero(np.max(came, axis=0) > SAME):
        kinds[i] = ""
    alike = likeness_to(rows, rows, profile, single=True) > ALIKE
    while left := [i for i, kind in enumerate(kinds) if kind is None]:
        near = alike[np.ix_(left, left)]
        center = rows[left][near[near.sum(axis=1).argmax()]].mean(axis=0, keepdims=True)
        members = np.flatnonzero(likeness_to(rows[left], center, profile)[:, 0] > ALIKE)
        if len(members) < RECURS:
            break
        name = secrets.token_hex(4)
        for i in members:
            kinds[left[i]] = name
    return kinds


def likeness_to(rows: Array, centers: Array, profile: RoutingProfile, *, single: bool = False) -> Array:
    """How like requests (n, p) are to kinds whose requests have these mean features (m, p), (n, m); with `single` each
    of the latter is one request."""
    words, meaning = (unit(part).astype(np.float32) for part in profile.features.split(centers))
    return profile.kinds.likeness_to(words, meaning, *profile.features.split(rows), single=single)


def _number(variable: str, usual: float, *, most: float) -> float:
    given = os.environ.get(variable, "").strip()
    try:
        value = float(given) if given else usual
    except ValueError:
        value = -1.0
    # Written so that NaN is refused too.
    if not 0 < value <= most:
        raise InputError(f"{variable} is {given!r}: give a number above 0 and up to {most:g}, as in {usual:g}")
    return value
