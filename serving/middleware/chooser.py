"""Choose who answers: session, constraints, router within its time, then loading; any doubt means base."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ...router import NO_TEXT, RoutingDecision
from ..constraints import Constraints
from ..http.errors import RefusedError
from ..loading import LoadError, load
from ..state import ServerState, TextRouter
from ..timeouts import SaturatedError
from .choice import CHOSEN, Choice
from .sessions import Sessions


class Chooser:
    """Chooses for one server process, by what `state` says at the time of each request."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._sessions = Sessions(keys=state.session_keys, ttl_s=state.session_ttl_s)

    async def choose(self, text: Callable[[], Awaitable[str]], wanted: Constraints) -> Choice:
        """Choose an adapter that is loaded when this returns, or base; `text` is only asked where no session decides.

        Raises:
            RefusedError: `text` found the request malformed.
        """
        try:
            choice = self._kept(wanted) or await self._decide(await text(), wanted)
            return await self._load(choice, wanted)
        except RefusedError:
            raise
        except Exception as exc:  # noqa: BLE001 - the outer boundary: no fault of routing fails a request
            # The message may quote the request, so only the type is logged and told.
            return Choice.base(f"router-error: {type(exc).__name__}")

    def _kept(self, wanted: Constraints) -> Choice | None:
        """The session's choice, where this request admits it."""
        kept = None
        if wanted.session is not None and not wanted.reroute:
            kept = self._sessions.find(wanted.session)
        if kept is None or not self._admits(kept, wanted):
            return None
        return replace(kept, sticky=True, reason=f"session: {kept.reason}")

    def _admits(self, kept: Choice, wanted: Constraints) -> bool:
        if kept.adapter is None:
            return True
        return (
            kept.adapter in self._state.adapters
            and wanted.broken_by(kept.adapter, self._state.tags_of(kept.adapter)) is None
            and (wanted.min_gain is None or kept.low > wanted.min_gain)
        )

    async def _decide(self, text: str, wanted: Constraints) -> Choice:
        router = self._state.router
        if router is None:
            return Choice.base(self._state.no_router)
        options = self._options(wanted)
        if options.get("among") == frozenset():
            return Choice.base("constrained: no adapter has what allow, deny and tags ask for")
        if not text:
            return Choice.base(NO_TEXT)
        start = time.perf_counter()
        try:
            choice = await self._route(router, text, options)
        except TimeoutError:
            limit_ms = self._state.budget_s * 1000
            choice = Choice.base(f"router-timeout: no choice in {limit_ms:.0f} ms")
        except SaturatedError:
            return Choice.base("router-busy: others were still being chosen for")
        return replace(choice, seconds=time.perf_counter() - start)

    async def _route(self, router: TextRouter, text: str, options: dict[str, Any]) -> Choice:
        decision = await self._state.budget.run(lambda: self._watched(router, text, options), self._state.budget_s)
        among = options.get("among")
        if among is not None and decision.adapter is not None and decision.adapter not in among:
            return Choice.base("router-error: it chose an adapter that the request does not admit")
        return Choice.of(decision)

    def _watched(self, router: TextRouter, text: str, options: dict[str, Any]) -> RoutingDecision:
        decision = router.route(text, **options)
        if self._state.watch is not None:
            self._state.watch.saw(text, decision)
        return decision

    def _options(self, wanted: Constraints) -> dict[str, Any]:
        """The router's options, only those that the request asks for."""
        options: dict[str, Any] = {}
        if wanted.limits_adapters:
            options["among"] = wanted.among(self._state.adapters, self._state.tags_of)
        if wanted.min_gain is not None:
            options["least_gain"] = wanted.min_gain
        if wanted.explain:
            options["explain"] = True
        return options

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
            self._sessions.keep(wanted.session, choice)
        return choice
