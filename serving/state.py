"""What the middleware goes by: the router, what may be loaded, and the limits."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..adapters import Location
from ..router import RoutingDecision
from .loading import AdapterLoader, NoLoader
from .timeouts import TimeBudget

if TYPE_CHECKING:
    from .skills.snapshot import Snapshot
    from .traffic.watch import DemandWatch

AUTO = "auto"
BASE = "base"


class TextRouter(Protocol):
    """Anything that routes text; called in worker threads, with only those options that a request gave."""

    def route(
        self,
        request: str,
        /,
        *,
        among: Collection[str] | None = None,
        least_gain: float | None = None,
        explain: bool = False,
    ) -> RoutingDecision:
        """Choose an adapter, or base, for a request's text."""
        ...


def _not_known(_: str) -> None:
    return None


def _as_given(model: str) -> str:
    return model


@dataclass
class ServerState:
    """What the middleware goes by; the server replaces fields as its registry changes.

    `base_names` are the names of the bare base model, the first of which its answers bear; `adapters`
    are all other names that may be loaded, and `tags` what each of them is tagged with; `withheld` are names of adapters
    that the registry has or had and that may not be served; `no_router` says why `router` is None. `budget_s` is the time a decision may take, in seconds. `counts` counts outcomes
    of `auto` requests.

    `origins` are those of web pages that may speak MCP to the server, beside this machine's.

    `resolve` says which adapter, or which name of the base model, a model's name stands for, where the server takes more names than
    its adapters have; what it does not know it gives back. Constraints bind what a name stands for.

    `invocations_header` is the header by which the app's `/invocations` takes the adapter's name (empty:
    that path is not routed). Sessions and explained decisions are kept per process, in bounded memory.

    `location` is where the registry lies (None: not read yet).
    `snapshot` is what skills are answered from (None: for the reason in `no_router`), `loaded` says whether an adapter
    is loaded (None: not known), `watch` counts what is routed (None: nothing does), and `budget` is where decisions are computed.
    """

    base_names: tuple[str, ...] = (BASE,)
    adapters: frozenset[str] = frozenset()
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    router: TextRouter | None = None
    no_router: str = "no-profile: the server is starting"
    loader: AdapterLoader = field(default_factory=NoLoader)
    budget_s: float = 0.05
    max_body_bytes: int = 8 * 2**20
    session_ttl_s: float = 3600.0
    session_keys: int = 10_000
    invocations_header: str = ""
    origins: Collection[str] = ()
    resolve: Callable[[str], str] = _as_given
    loaded: Callable[[str], bool | None] = _not_known
    location: Location | None = None
    snapshot: "Snapshot | None" = None
    watch: "DemandWatch | None" = None
    budget: TimeBudget = field(default_factory=TimeBudget)
    counts: Counter[str] = field(default_factory=Counter)

    def tags_of(self, adapter: str) -> frozenset[str]:
        """What an adapter is tagged with."""
        return self.tags.get(adapter, frozenset())
