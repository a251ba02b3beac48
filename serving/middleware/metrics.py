"""Prometheus metrics in the client library's default registry, which is what a server's `/metrics` shows.

vLLM's shows them with one API server process, and with several: counters and histograms add up over processes, gauges
are those of the process that is worst off. Without `prometheus_client` nothing is counted. Names of adapters become labels, so only the
first `MAX_ADAPTERS` that are seen get their own; the rest share `other`.
"""

from functools import cache
from typing import TYPE_CHECKING, Protocol

from ..state import BASE
from .choice import Choice

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

MAX_ADAPTERS = 200
# Below a first bucket under zero the client library gives no sum; a chosen adapter's gain is seldom there.
_GAINS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25)


class Metrics(Protocol):
    """Where choices and failures to load are counted."""

    def choice(self, choice: Choice) -> None:
        """Count a choice for an `auto` request."""
        ...

    def load_failure(self, adapter: str) -> None:
        """Count an adapter asked for that could not be loaded."""
        ...

    def registry(self, *, reachable: bool) -> None:
        """Say whether the registry could be read just now."""
        ...


class NoMetrics:
    """Counts nothing: `prometheus_client` is not installed."""

    def choice(self, choice: Choice) -> None:
        """Do nothing."""

    def load_failure(self, adapter: str) -> None:
        """Do nothing."""

    def registry(self, *, reachable: bool) -> None:
        """Do nothing."""


class PrometheusMetrics:
    """Counts in `registry`."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._named: set[str] = {BASE}
        self._decisions = Counter(
            "traitroute_decisions",
            "Requests for auto, by the adapter that answered and the kind of reason.",
            ("adapter", "kind"),
            registry=registry,
        )
        self._fallbacks = Counter(
            "traitroute_fallbacks",
            "Requests for auto that base answered because something went wrong, by what did.",
            ("kind",),
            registry=registry,
        )
        self._load_failures = Counter(
            "traitroute_load_failures",
            "Requests whose adapter could not be loaded.",
            ("adapter",),
            registry=registry,
        )
        self._sticky_hits = Counter(
            "traitroute_sticky_hits",
            "Requests answered by the adapter that their session had before.",
            registry=registry,
        )
        self._gain = Histogram(
            "traitroute_predicted_gain",
            "Predicted gain over the base model of chosen adapters, in score points.",
            buckets=_GAINS,
            registry=registry,
        )
        self._seconds = Histogram(
            "traitroute_routing_seconds",
            "Time a request waited for its choice, loading not included.",
            buckets=_SECONDS,
            registry=registry,
        )

        self._reachable = Gauge(
            "traitroute_registry_reachable",
            "1 where the registry could be read when it was last looked at, 0 where not.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._read_at = Gauge(
            "traitroute_registry_confirmed_seconds",
            "Unix time at which what this server goes by was last known to be the registry's newest.",
            registry=registry,
            multiprocess_mode="livemin",
        )

    def choice(self, choice: Choice) -> None:
        """Count a choice for an `auto` request."""
        self._decisions.labels(self._label(choice.adapter or BASE), choice.kind).inc()
        if choice.is_fallback:
            self._fallbacks.labels(choice.kind).inc()
        if choice.unloaded is not None:
            self.load_failure(choice.unloaded)
        if choice.sticky:
            self._sticky_hits.inc()
        if choice.adapter is not None:
            self._gain.observe(choice.gain)
        if choice.seconds is not None:
            self._seconds.observe(choice.seconds)

    def load_failure(self, adapter: str) -> None:
        """Count an adapter asked for that could not be loaded."""
        self._load_failures.labels(self._label(adapter)).inc()

    def registry(self, *, reachable: bool) -> None:
        """Say whether the registry could be read just now."""
        self._reachable.set(reachable)
        if reachable:
            self._read_at.set_to_current_time()

    def _label(self, adapter: str) -> str:
        if adapter in self._named or len(self._named) < MAX_ADAPTERS:
            self._named.add(adapter)
            return adapter
        return "other"


@cache
def open_metrics() -> Metrics:
    """Return the process's metrics; the default registry takes each name once."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return NoMetrics()
    return PrometheusMetrics(REGISTRY)
