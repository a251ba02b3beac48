"""Choose who answers an `auto` request: session, constraints, router within its time, loading; in doubt the base model.

Sessions are kept in this process only, so with several server processes each has its own. Underneath lies a rule that
needs no state and holds in all of them: the first user turn is what is routed, and it does not change within a
conversation. A session's key matters where that turn is missing (`previous_response_id`) or trimmed. What
is drawn for a control group is the same session or turn (`experiment`), so a kept choice is on the side on which it
would be drawn again.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cachetools import TTLCache

from ...router import NO_TEXT, RoutingDecision
from ..canaries import Entry, route_with
from ..constraints import Constraints
from ..experiment import Arm, Draw, Drawn, conversation_of
from ..http.errors import RefusedError
from ..loading import AdapterLoader, LoadError
from ..snapshot import RegistrySnapshot
from ..state import BASE, ServerState
from ..timeouts import SaturatedError

RawHeaders = list[tuple[bytes, bytes]]
TextOf = Callable[[bool], Awaitable[str]]
"""Gives a request's first user turn that says something, or with True its last one."""

CHOSEN = frozenset({"adapter", "base"})
"""The kinds of choices that the router made; all others mean base."""
NO_FAULTS = CHOSEN | {"constrained", "no-text"}
"""The kinds of choices where nothing went wrong."""


@dataclass(frozen=True)
class Choice:
    """Who answers an `auto` request (None: the base model), and why.

    `kind` is the outcome in one word, of a small fixed set: `adapter` or `base` as the router chose; `constrained`
    where the request admits no adapter, `no-text` where it has no text to route by; else what went wrong. `sure` is the
    predicted gain less the router's caution, `seconds` the time that routing took; `sticky` says that the session
    decided; `unloaded` is the adapter that was chosen and could not be loaded. `arm`, `propensity` and `conversation`
    are what was drawn of those in `CHOSEN`, as the decision's token has them, and `entry` what was of a canary.
    """

    adapter: str | None
    gain: float
    reason: str
    kind: str
    sure: float = 0.0
    profile_version: int | None = None
    sticky: bool = False
    unloaded: str | None = None
    seconds: float | None = None
    decision: RoutingDecision | None = None
    arm: Arm = "auto"
    propensity: float = 1.0
    conversation: str = ""
    entry: Entry | None = None

    @classmethod
    def of(cls, decision: RoutingDecision) -> "Choice":
        """The choice that a decision makes."""
        return cls(
            adapter=decision.adapter,
            gain=decision.gain,
            reason=decision.reason,
            kind="adapter" if decision.adapter else "base",
            sure=decision.gain - decision.caution if decision.adapter else 0.0,
            profile_version=decision.profile_version,
            decision=decision,
        )

    @classmethod
    def base(cls, reason: str) -> "Choice":
        """The base model, for a reason that opens with its kind and a colon."""
        return cls(None, 0.0, reason, reason.partition(":")[0])

    def assigned(self, drawn: Drawn, entry: Entry | None = None) -> "Choice":
        """The choice after its conversation was drawn; its reason begins with the arm where that changes something."""
        drawn_so = {"arm": drawn.arm, "propensity": drawn.propensity, "conversation": drawn.conversation}
        choice = replace(self, **drawn_so, entry=entry)
        if drawn.arm == "auto" and entry is not None and entry.given:
            return replace(choice, arm="canary", reason=f"canary: {self.reason}")
        if drawn.arm == "auto":
            return choice
        answerer = drawn.answerer
        if drawn.arm == "control":
            instead = "base instead of " if self.adapter is not None else ""
        else:
            interval = f"{answerer.gain:+.2f} [{answerer.low:+.2f}, {answerer.high:+.2f}]"
            instead = f"{answerer.adapter or BASE} at {interval} instead of "
        return replace(
            choice,
            adapter=answerer.adapter,
            gain=answerer.gain,
            sure=answerer.gain - (self.decision.caution if self.decision and answerer.adapter else 0.0),
            kind="adapter" if answerer.adapter else "base",
            reason=f"{drawn.arm}: {instead}{self.reason}",
        )

    @property
    def is_tie(self) -> bool:
        """Whether a loaded adapter answers in place of one that is about as good."""
        decision = self.decision
        return decision is not None and decision.instead_of is not None and self.adapter == decision.adapter

    @property
    def is_fallback(self) -> bool:
        """Whether something went wrong, so that base answers."""
        return self.kind not in NO_FAULTS

    def headers(self) -> RawHeaders:
        """The response's headers: adapter, gain, reason, and where the router decided how, by which profile."""
        parts = {"adapter": self.adapter or BASE, "gain": f"{self.gain:+.3f}", "reason": self.reason}
        if self.kind in CHOSEN and self.conversation:
            parts |= {"arm": self.arm, "propensity": f"{self.propensity:.6g}"}
            if self.entry is not None:
                parts["canary"] = f"{self.entry.canary};share={self.entry.share:g};given={self.entry.given:d}"
        if self.profile_version is not None:
            parts["profile"] = str(self.profile_version)
        return [(f"x-traitroute-{key}".encode(), printable(text)) for key, text in parts.items()]


class Chooser:
    """Chooses for one server process; each request by the `snapshot` that it took."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        # Each choice less its evidence, which is large.
        self._sessions: TTLCache[str, Choice] = TTLCache(maxsize=state.session_keys, ttl=state.session_ttl_s)

    async def choose(
        self, text: TextOf, wanted: Constraints, snapshot: RegistrySnapshot, *, client: bytes = b""
    ) -> Choice:
        """Choose an adapter that is loaded when this returns, or base; `text` is only asked where no session decides.

        `text` is given whether the last user turn is wanted, and not the first; `client` is the API key's digest.

        Raises:
            RefusedError: `text` found the request malformed.
        """
        try:
            choice = self._kept(wanted, snapshot) or await self._decide(text, wanted, snapshot, client)
            return await self._load(choice, wanted)
        except RefusedError:
            raise
        except Exception as exc:  # noqa: BLE001 - the outer boundary: no fault of routing fails a request
            # The message may quote the request, so only its type is logged and sent.
            return Choice.base(f"router-error: {type(exc).__name__}")

    def _kept(self, wanted: Constraints, snapshot: RegistrySnapshot) -> Choice | None:
        """The session's choice, where this request admits it; this counts as a use of the session."""
        if wanted.session is None or wanted.reroute or (kept := self._sessions.get(wanted.session)) is None:
            return None
        self._sessions[wanted.session] = kept
        if kept.adapter is not None and (
            kept.adapter not in snapshot.adapters
            or wanted.broken_by(kept.adapter, snapshot.tags_of(kept.adapter)) is not None
            or (wanted.min_gain is not None and kept.sure <= wanted.min_gain)
            or snapshot.is_taken_back(kept.adapter)
        ):
            return None
        return replace(kept, sticky=True, reason=f"session: {kept.reason}")

    async def _decide(self, text_of: TextOf, wanted: Constraints, snapshot: RegistrySnapshot, client: bytes) -> Choice:
        text = await text_of(wanted.reroute)
        if snapshot.router is None:
            return Choice.base(snapshot.no_router)
        options = _options(wanted, snapshot)
        if options.get("among") == frozenset():
            return Choice.base("constrained: no adapter has what allow, deny and tags ask for")
        if not text:
            return Choice.base(NO_TEXT)
        start, state = time.perf_counter(), self._state
        opening = await text_of(False) if wanted.reroute and wanted.session is None else text
        identity = conversation_of(session=wanted.session, first_turn=opening, client=client)
        options |= self._held(identity)
        try:
            experiment = state.experiment.holding_back(snapshot.tenant.holdback)
            draw = experiment.draw(snapshot.draw_key, identity)
            decision, entry = await state.budget.run(lambda: self._route(text, options, snapshot, draw), state.budget_s)
            if decision.adapter not in (None, *options.get("among", (decision.adapter,))):
                choice = Choice.base("router-error: it chose an adapter that the request does not admit")
            else:
                if state.slots is not None and decision.adapter is not None:
                    state.slots.keep(identity, decision.adapter)
                drawn = experiment.assign(draw, decision, least_gain=wanted.min_gain)
                choice = Choice.of(decision).assigned(drawn, entry)
        except TimeoutError:
            choice = Choice.base(f"router-timeout: no choice in {state.budget_s * 1000:.0f} ms")
        except SaturatedError:
            return Choice.base("router-busy: others were still being chosen for")
        return replace(choice, seconds=time.perf_counter() - start)

    def _held(self, conversation: bytes) -> dict[str, Any]:
        """The router's options where fewer adapters may be held than there are, and ties go to what is held."""
        slots = self._state.slots
        if slots is None or len(self._state.snapshot.adapters) <= slots.count:
            return {}
        held = slots.held(conversation)
        return {} if held is None else {"held": held.names, "worth": held.worth}

    def _route(
        self, text: str, options: dict[str, Any], snapshot: RegistrySnapshot, draw: Draw
    ) -> tuple[RoutingDecision, Entry | None]:
        """Runs in a worker thread."""
        trial, router = snapshot.trial_router, snapshot.router
        assert router is not None
        if trial is None:
            decision, entry = router.route(text, **options), None
        else:
            # It may choose twice, by one prediction.
            route = partial(trial.route, trial.predict(text))
            decision, entry = route_with(snapshot.canaries, draw.lot, route, options, snapshot.ready)
        if self._state.watch is not None and snapshot.profile is not None:
            self._state.watch(text, decision, snapshot.profile)
        if self._state.sample is not None:
            self._state.sample(text, decision, snapshot)
        return decision, entry

    async def _load(self, choice: Choice, wanted: Constraints) -> Choice:
        if choice.adapter is not None:
            try:
                await load(self._state.loader, choice.adapter)
            except LoadError as exc:
                return replace(
                    Choice.base(f"load-failed: {exc}"),
                    unloaded=choice.adapter,
                    seconds=choice.seconds,
                    decision=choice.decision,
                )
        if wanted.session is not None and choice.kind in CHOSEN and not choice.sticky:
            self._sessions[wanted.session] = replace(choice, decision=None, seconds=None)
        return choice


async def load(loader: AdapterLoader, name: str) -> None:
    """Return once the adapter can be served by its name.

    Raises:
        LoadError: it cannot be loaded, whatever the loader itself raised.
    """
    try:
        await loader.ensure(name)
    except LoadError:
        raise
    except Exception as exc:
        # The engine behind a loader fails in ways of its own; its message may hold paths.
        raise LoadError(f"{name!r} could not be loaded: {type(exc).__name__}") from exc


def _options(wanted: Constraints, snapshot: RegistrySnapshot) -> dict[str, Any]:
    """The router's options, only those that the request asks for."""
    options: dict[str, Any] = {}
    if wanted.limits_adapters:
        options["among"] = wanted.among(snapshot.adapters, snapshot.tags_of)
    if wanted.min_gain is not None:
        options["least_gain"] = wanted.min_gain
    if wanted.explain:
        options["explain"] = True
    return options


def printable(text: str) -> bytes:
    """One line of at most 200 printable ASCII characters, as a header must be."""
    kept = text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else " " for c in text)
    return " ".join(kept.split())[:200].strip().encode("ascii")
