"""The state of a server: its settings, and the snapshot of its registry that requests go by."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from cachetools import LRUCache

from ..router import RoutingDecision, RoutingProfile
from .experiment import Experiment
from .http.tenants import OPERATOR, Tenant
from .loading import AdapterLoader, NoLoader
from .proof import Proof
from .slots import Slots
from .snapshot import RegistrySnapshot
from .timeouts import TimeBudget

AUTO = "auto"
BASE = "base"
SEEN = 256
"""How many tenants' views of a snapshot are kept."""


def _not_known(_: str) -> None:
    return None


def _not_proven(_: str) -> None:
    return None


def _as_given(model: str) -> str:
    return model


@dataclass
class ServerState:
    """Settings of one server process, fixed once it answers, and the `snapshot` of its registry.

    `snapshot` is replaced whole, in one assignment; whoever answers a request takes it once and goes by it to the end.

    `base_names` are the names of the bare base model, of which its answers bear the first. `resolve` gives the adapter,
    or the name of the base model, that a model's name stands for, where the server takes more names than it lists; a
    name that it does not know it gives back. `loaded` says whether an adapter is loaded (None: not known), and `proof`
    whether the server is known to apply it (None: it was not loaded yet).

    A decision may take `budget_s` seconds, and is computed in the threads of `budget`. A session, of which the last
    `session_keys` are kept in this process, is forgotten `session_ttl_s` seconds after its last use. The app's
    `/invocations` takes the adapter's name from the header `invocations_header` (empty: that path is not routed).
    Web pages from `origins`, and from this machine, may speak MCP to the server. `counts` counts the outcomes of `auto`
    requests, and `watch` is called with each text that was routed, the decision and its profile; so is `sample`, with
    the snapshot, where the operator asks for samples. `experiment` says what is tried on them. `slots` says which
    adapters need not be loaded, where that is to decide between two that are about as good.
    """

    base_names: tuple[str, ...] = (BASE,)
    loader: AdapterLoader = field(default_factory=NoLoader)
    loaded: Callable[[str], bool | None] = _not_known
    proof: Callable[[str], Proof | None] = _not_proven
    resolve: Callable[[str], str] = _as_given
    budget_s: float = 0.05
    budget: TimeBudget = field(default_factory=TimeBudget)
    max_body_bytes: int = 8 * 2**20
    session_ttl_s: float = 3600.0
    session_keys: int = 10_000
    invocations_header: str = ""
    origins: Collection[str] = ()
    counts: Counter[str] = field(default_factory=Counter)
    watch: Callable[[str, RoutingDecision, RoutingProfile], None] | None = None
    sample: Callable[[str, RoutingDecision, RegistrySnapshot], None] | None = None
    experiment: Experiment = field(default_factory=Experiment)
    slots: Slots | None = None
    snapshot: RegistrySnapshot = field(default_factory=RegistrySnapshot)
    _seen: LRUCache[str, RegistrySnapshot] = field(default_factory=lambda: LRUCache(SEEN), init=False, repr=False)
    _seen_of: RegistrySnapshot | None = field(default=None, init=False, repr=False)

    def seen_by(self, tenant: Tenant) -> RegistrySnapshot:
        """The snapshot as `tenant` may see it; called on the event loop."""
        if tenant is OPERATOR:
            return self.snapshot
        if self._seen_of is not self.snapshot:
            self._seen.clear()
            self._seen_of = self.snapshot
        seen = self._seen.get(tenant.name)
        if seen is None or seen.tenant is not tenant:
            seen = self._seen[tenant.name] = self.snapshot.seen_by(tenant)
        return seen
