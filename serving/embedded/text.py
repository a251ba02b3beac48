"""From token ids to text, piece by piece, up to a stop string.

A piece is given out once no later token can change it: bytes of a character wait for its last byte, and what
may be the start of a stop string waits until it is or is not one. All pieces together are the whole answer, so
that a streamed answer equals one that is not.
"""

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"
"""What tokenizers show for bytes that are no character yet."""


class TextStream:
    """The text of one answer; `stopped` says that a stop string ended it."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._tokens: list[int] = []
        # Some tokenizers write a token differently at the start of a text, so each is decoded after others.
        self._context = 0
        self._decoded = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that `token` settles, which may be none."""
        self._tokens.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(_UNFINISHED):
            return ""
        self._context, self._decoded = self._decoded, len(self._tokens)
        return self._release(fresh)

    def finish(self) -> str:
        """What was still held back."""
        text = self._release(self._fresh())
        held, self._held = self._held, ""
        return text + held

    def _fresh(self) -> str:
        known = self._decode(self._tokens[self._context : self._decoded])
        return self._decode(self._tokens[self._context :])[len(known) :]

    def _release(self, fresh: str) -> str:
        text, self._held = self._held + fresh, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
