"""Versions of the profile: which decisions differ between two, and back to an earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..adapters import Adapter, AdapterState, Registry, StoredProfile
from ..router import Router, RoutingProfile
from .matrix.new_row import without
from .matrix.profiled import Profiled


@dataclass(frozen=True)
class Reference:
    """Requests whose decisions are compared; `kinds` (n,) says what each is, such as its task."""

    texts: Sequence[str]
    kinds: Sequence[str]

    @classmethod
    def of_tasks(cls, profiled: Profiled) -> "Reference":
        """The test prompts of the newest profile's tasks."""
        pairs = [(e.prompt, t.name) for t in profiled.tasks for e in t.test_examples]
        return cls([text for text, _ in pairs], [kind for _, kind in pairs])


@dataclass(frozen=True)
class Moved:
    """A request that two profiles route differently; None is the base model."""

    place: int
    kind: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class RolledBack:
    """The new version, and the adapters whose rows were left out since they have other weights now."""

    version: int
    left_out: tuple[str, ...]


def moved(registry: Registry, before: StoredProfile, after: StoredProfile, requests: Reference) -> list[Moved]:
    """Requests that `after` routes otherwise than `before`, among the adapters that are ready now."""
    ready = frozenset(a.name for a in registry.adapters(AdapterState.READY))
    old, new = (
        Router(RoutingProfile.from_bytes(each.data), version=each.version, routable=ready) for each in (before, after)
    )
    found = []
    for place, (text, kind) in enumerate(zip(requests.texts, requests.kinds, strict=True)):
        was, now = old.route(text).adapter, new.route(text).adapter
        if was != now:
            found.append(Moved(place, kind, was, now))
    return found


def roll_back(registry: Registry, version: int) -> RolledBack:
    """Make a new version of what `version` held; an adapter whose weights were replaced since is not in it.

    Raises:
        RegistryError: there is no such version.
    """
    stored = registry.profile(version)
    known = {a.name: a for a in registry.adapters()}
    gone = [n for n in stored.summary["adapters"] if _replaced(stored, known.get(n), n)]
    cells = {s.key for s in registry.cell_scores() if s.adapter in gone} if gone else set()
    found = without(stored, gone, cells) if gone else stored
    new = registry.put_profile(found.data, found.summary, origin="rollback", parent=version)
    return RolledBack(new, tuple(gone))


def _replaced(stored: StoredProfile, now: Adapter | None, name: str) -> bool:
    """Whether the adapter has other weights than its row; of earlier profiles, which do not say, whether it ever had."""
    if now is None:
        return False
    then = stored.summary.get("weights", {}).get(name)
    return now.version > 1 if then is None else then != now.weights_digest
