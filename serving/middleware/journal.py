"""The log: a DEBUG record for each choice, with its parts in `extra`, and a warning when base stands in.

No record holds any of a request's text. A fault that meets every request is warned of once in a while.
"""

import logging
import time

from ..state import BASE
from .choice import Choice

WARN_EVERY_S = 30.0
_logger = logging.getLogger(__name__)


class Journal:
    """Writes what was chosen to this module's logger."""

    def __init__(self) -> None:
        self._warned: dict[str, float] = {}

    def choice(self, choice: Choice) -> None:
        """Record a choice for an `auto` request."""
        if choice.is_fallback:
            self._warn(choice)
        if _logger.isEnabledFor(logging.DEBUG):
            fields = {
                "adapter": choice.adapter or BASE,
                "gain": choice.gain,
                "kind": choice.kind,
                "reason": choice.reason,
                "sticky": choice.sticky,
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
