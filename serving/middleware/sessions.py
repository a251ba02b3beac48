"""Sessions: callers who give a key get the adapter of the key's first decision again.

Kept in this process only, so with several server processes each has its own. Underneath lies a rule that
needs no state and holds in all of them: the first user turn is what is routed, and it does not change
within a conversation. A key matters where that turn is missing (`previous_response_id`) or trimmed.
"""

from dataclasses import replace

from cachetools import TTLCache

from .choice import Choice


class Sessions:
    """The choices of the last `keys` sessions; each is forgotten `ttl_s` seconds after its last use."""

    def __init__(self, *, keys: int, ttl_s: float) -> None:
        self._choices: TTLCache[str, Choice] = TTLCache(maxsize=keys, ttl=ttl_s)

    def find(self, key: str) -> Choice | None:
        """Return the choice of a session, which counts as a use of it."""
        choice = self._choices.get(key)
        if choice is not None:
            self._choices[key] = choice
        return choice

    def keep(self, key: str, choice: Choice) -> None:
        """Remember a choice, less its evidence, which is large."""
        self._choices[key] = replace(choice, decision=None, seconds=None)
