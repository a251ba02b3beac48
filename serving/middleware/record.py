"""What is recorded of decisions: counts and Prometheus metrics, a log, OpenTelemetry spans, and explanations by id.

Nothing recorded holds any of a request's text.

Metrics are in the client library's default registry, which is what a server's `/metrics` shows. vLLM's shows them with
one API server process, and with several: counters and histograms add up over processes, gauges are those of the process
that is worst off. Without `prometheus_client` nothing is counted. Names of adapters become labels, so only the first
`MAX_ADAPTERS` that are seen get their own; the rest share `other`.

An explained decision is kept for `GET /v1/decisions/{id}`, and sent in the header `x-traitroute-decision`: the URL-safe
base64 (RFC 4648, section 5) of compact JSON, with numbers rounded to four decimals. Where that is longer than 6 KiB the
parts of the demand go first, then all but three of the ranking, then the header; the decision by id is always whole.
"""

import base64
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, Self

from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers

from ...router import RoutingDecision
from ..http.tenants import OPERATOR, Tenant
from ..proof import Proof, Verdict
from ..state import BASE
from .choice import CHOSEN, Choice, RawHeaders

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

DECISIONS = "/v1/decisions/"
MAX_HEADER_BYTES = 6 * 1024
KEPT = 1000
"""How many explained decisions a process keeps."""
WARN_EVERY_S = 30.0
"""A fault that meets every request is warned of this often."""
MAX_ADAPTERS = 200
# Below a first bucket under zero the client library gives no sum; a chosen adapter's gain is seldom there.
_GAINS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25)
_logger = logging.getLogger(__name__)


class Recorder:
    """Records the choices of one server process; `counts` counts their outcomes."""

    def __init__(self, counts: Counter[str], *, kept: int = KEPT) -> None:
        self._counts = counts
        self._metrics = open_metrics()
        self._tracing = Tracing()
        self._warned: dict[str, float] = {}
        # Beside each the name of the tenant that it was made for.
        self._explanations: LRUCache[str, tuple[str, str]] = LRUCache(maxsize=kept)

    @contextmanager
    def recording(self, headers: Headers) -> Iterator[Callable[[Choice], None]]:
        """Open a span around a choice; call what it gives with the choice made."""
        with self._tracing.span(headers) as trace:

            def record(choice: Choice) -> None:
                trace(choice)
                self._count(choice)
                self._log(choice)

            yield record

    def load_failure(self, adapter: str) -> None:
        """Count an adapter asked for by its name that could not be loaded."""
        self._metrics.load_failure(adapter)

    def explain(self, choice: Choice, tenant: Tenant = OPERATOR) -> RawHeaders:
        """Keep an explanation of a choice made for `tenant` under a new id; return the headers that hold both."""
        explanation = Explanation.of(choice)
        self._explanations[explanation.id] = tenant.name, explanation.model_dump_json()
        return explanation.headers()

    def find(self, decision_id: str, tenant: Tenant = OPERATOR) -> str | None:
        """Return an explanation as JSON, or None where it is not, or no longer, kept here for `tenant`."""
        owner, explanation = self._explanations.get(decision_id, ("", None))
        return explanation if tenant.may_all or owner == tenant.name else None

    def _count(self, choice: Choice) -> None:
        self._counts[choice.kind] += 1
        if choice.sticky:
            self._counts["sticky"] += 1
        self._metrics.choice(choice)

    def _log(self, choice: Choice) -> None:
        """A DEBUG record with the choice's parts in `extra`, and a warning when base stands in."""
        if choice.is_fallback:
            self._warn(choice)
        if _logger.isEnabledFor(logging.DEBUG):
            fields = {
                "adapter": choice.adapter or BASE,
                "gain": choice.gain,
                "kind": choice.kind,
                "reason": choice.reason,
                "sticky": choice.sticky,
                "arm": choice.arm,
                "profile_version": choice.profile_version,
                "seconds": choice.seconds,
            }
            extra = {f"traitroute_{key}": value for key, value in fields.items()}
            _logger.debug("routed to %s", choice.adapter or BASE, extra=extra)

    def _warn(self, choice: Choice) -> None:
        now = time.monotonic()
        # Before the first profile every request meets this; the server said so when it started.
        if choice.kind == "no-profile" or now < self._warned.get(choice.kind, now):
            return
        self._warned[choice.kind] = now + WARN_EVERY_S
        _logger.warning("base stands in: %s", choice.reason)


class Explanation(BaseModel):
    """A choice with its evidence; `decision` is None where a session decided, or routing failed."""

    model_config = ConfigDict(frozen=True)

    id: str
    adapter: str
    kind: str
    reason: str
    sticky: bool
    profile_version: int | None
    decision: RoutingDecision | None

    @classmethod
    def of(cls, choice: Choice) -> Self:
        """Explain a choice, under a new id."""
        return cls(
            id=uuid.uuid4().hex,
            adapter=choice.adapter or BASE,
            kind=choice.kind,
            reason=choice.reason,
            sticky=choice.sticky,
            profile_version=choice.profile_version,
            decision=choice.decision,
        )

    def headers(self) -> RawHeaders:
        """The decision's id, and the decision itself where it fits into a header."""
        headers = [(b"x-traitroute-decision-id", self.id.encode("ascii"))]
        if value := header_value(self.model_dump_json()):
            headers.append((b"x-traitroute-decision", value))
        return headers


class Tracing:
    """Opens a span around each choice where OpenTelemetry's API is installed and a tracer configured.

    Spans are children of the request's `traceparent` unless there is a span already.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            self._trace = None
            return
        self._trace, self._propagate = trace, propagate
        self._tracer = trace.get_tracer("traitroute")

    @contextmanager
    def span(self, headers: Headers) -> Iterator[Callable[[Choice], None]]:
        """Open a span; call what it gives with the choice made."""
        if self._trace is None:
            yield _ignore
            return
        around = self._trace.get_current_span().get_span_context().is_valid
        parent = None if around else self._propagate.extract(headers)
        with self._tracer.start_as_current_span("traitroute.route", context=parent) as span:

            def trace(choice: Choice) -> None:
                span.set_attributes(
                    {
                        "traitroute.adapter": choice.adapter or BASE,
                        "traitroute.gain": choice.gain,
                        "traitroute.reason": choice.reason,
                        "traitroute.kind": choice.kind,
                        "traitroute.sticky": choice.sticky,
                        "traitroute.arm": choice.arm,
                        "traitroute.propensity": choice.propensity,
                    }
                )

            yield trace


def _ignore(_: Choice) -> None:
    pass


class Metrics(Protocol):
    """Where choices and failures to load are counted."""

    def choice(self, choice: Choice) -> None:
        """Count a choice for an `auto` request."""
        ...

    def load_failure(self, adapter: str) -> None:
        """Count an adapter asked for that could not be loaded."""
        ...

    def proof(self, adapter: str, proof: Proof) -> None:
        """Count a proof that the server applies an adapter, or none."""
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

    def proof(self, adapter: str, proof: Proof) -> None:
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
        self._arms = Counter(
            "traitroute_arms",
            "Requests for auto that the router chose for, by arm: auto, canary, control (held back) or second.",
            ("arm",),
            registry=registry,
        )
        self._fallbacks = Counter(
            "traitroute_fallbacks",
            "Requests for auto that base answered because something went wrong, by what did.",
            ("kind",),
            registry=registry,
        )
        self._load_failures = Counter(
            "traitroute_load_failures", "Requests whose adapter could not be loaded.", ("adapter",), registry=registry
        )
        kept = "Requests answered by the adapter that their session had before."
        self._sticky_hits = Counter("traitroute_sticky_hits", kept, registry=registry)
        tied = "Requests answered by a loaded adapter in place of one that is about as good."
        self._ties = Counter("traitroute_ties", tied, registry=registry)
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
        self._proofs = Counter(
            "traitroute_proofs",
            "Readings of the probe after a load, by the adapter and the verdict: applied, idle or unproven.",
            ("adapter", "verdict"),
            registry=registry,
        )
        self._verdict = Gauge(
            "traitroute_adapter_verdict",
            "1 for the newest verdict on an adapter, 0 for the others.",
            ("adapter", "verdict"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._effect = Gauge(
            "traitroute_adapter_effect_nats",
            "The largest change of the probe's log-probabilities by an adapter, through this server.",
            ("adapter",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._noise = Gauge(
            "traitroute_probe_noise_nats",
            "The base model's own largest change there, from one batch to another.",
            registry=registry,
            multiprocess_mode="livemax",
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
        if choice.kind in CHOSEN:
            self._arms.labels(choice.arm).inc()
        if choice.is_fallback:
            self._fallbacks.labels(choice.kind).inc()
        if choice.unloaded is not None:
            self.load_failure(choice.unloaded)
        if choice.sticky:
            self._sticky_hits.inc()
        if choice.is_tie:
            self._ties.inc()
        if choice.adapter is not None:
            self._gain.observe(choice.gain)
        if choice.seconds is not None:
            self._seconds.observe(choice.seconds)

    def load_failure(self, adapter: str) -> None:
        """Count an adapter asked for that could not be loaded."""
        self._load_failures.labels(self._label(adapter)).inc()

    def proof(self, adapter: str, proof: Proof) -> None:
        """Count a proof that the server applies an adapter, or none, and show the newest figures."""
        label = self._label(adapter)
        self._proofs.labels(label, proof.verdict).inc()
        for verdict in Verdict:
            self._verdict.labels(label, verdict).set(verdict is proof.verdict)
        if proof.effect is not None:
            self._effect.labels(label).set(proof.effect.nats)
            self._noise.set(proof.effect.noise)

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


def header_value(explanation: str) -> bytes:
    """Return the header form of an explanation in JSON, shortened to fit; empty where none fits."""
    content = json.loads(explanation, parse_float=lambda text: round(float(text), 4))
    for shorten in (_whole, _without_parts, _with_three_ranked):
        shorten(content)
        value = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode())
        if len(value) <= MAX_HEADER_BYTES:
            return value
    return b""


def _whole(content: dict[str, Any]) -> None:
    """Leave everything."""


def _without_parts(content: dict[str, Any]) -> None:
    for part in ("demand", "contributions"):
        (content["decision"] or {}).pop(part, None)


def _with_three_ranked(content: dict[str, Any]) -> None:
    decision = content["decision"] or {}
    decision["ranking"] = decision.get("ranking", [])[:3]
