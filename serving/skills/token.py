"""Decision tokens: what was decided, signed, so that feedback needs no memory of the server that decided.

A token is `PAYLOAD.SIGNATURE`, both URL-safe base64 (RFC 4648, section 5) without padding. The payload is a JSON list and can be read by
anybody; the signature, 16 bytes of HMAC-SHA-256, shows that a server of the registry made it. It says when it was made and which
weights answer, so that what is hoarded can neither be told for ever nor of weights that came later.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import astuple, dataclass, field
from typing import Literal, Self

from pydantic import TypeAdapter

from ...adapters import InputError

FORMAT = 2
_FORMAT_1 = {"adapter", "gain", "level", "version", "id"}
_DIGITS = 16
_PAYLOAD = TypeAdapter(tuple[Literal[2], str | None, float, float | None, int, str | None, int, str])


class TokenError(InputError):
    """A text is no decision token."""


class OldTokenError(TokenError):
    """A text is a decision token of the first format, which says neither when it was made nor by which weights."""


def _new_id() -> str:
    return secrets.token_urlsafe(9)


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True)
class DecisionToken:
    """Who was chosen (None: base) by which profile version, with what predicted gain.

    `level` is the score that base alone was measured to have on the task that the request resembles most; with the gain
    it is the reward to expect. `weights` begins the digest of the adapter's weights; `made` is in seconds since 1970.
    """

    adapter: str | None
    gain: float
    level: float | None
    version: int
    weights: str | None = None
    made: int = field(default_factory=_now)
    id: str = field(default_factory=_new_id)

    @classmethod
    def of(cls, adapter: str | None, gain: float, level: float | None, version: int, weights: str) -> Self:
        """The token of a decision made now, by the digest of the `weights` that answer (empty: base)."""
        rounded = None if level is None else round(level, 4)
        return cls(adapter, round(gain, 4), rounded, version, weights[:_DIGITS] or None)

    def is_of(self, weights_digest: str) -> bool:
        """Whether these weights answered."""
        return bool(self.weights) and self.weights == weights_digest[:_DIGITS]

    def sign(self, key: bytes) -> str:
        """The token."""
        payload = json.dumps([FORMAT, *astuple(self)], separators=(",", ":")).encode()
        return f"{_encoded(payload)}.{_encoded(_signature(payload, key))}"

    @classmethod
    def read(cls, token: str) -> Self:
        """What a token says, whoever made it.

        Raises:
            OldTokenError: it is of the first format.
            TokenError: it is none.
        """
        try:
            payload = _decoded(token.partition(".")[0])
            if payload.startswith(b"{") and json.loads(payload).keys() == _FORMAT_1:
                raise OldTokenError("this decision token is of an older version of TraitRoute")
            return cls(*_PAYLOAD.validate_json(payload, strict=True)[1:])
        except (ValueError, RecursionError) as exc:
            raise TokenError("this is no decision token") from exc

    @classmethod
    def verify(cls, token: str, key: bytes) -> Self:
        """What a token says that was signed with `key`.

        Raises:
            TokenError: it was not.
        """
        try:
            payload, signature = map(_decoded, token.split("."))
        except ValueError as exc:
            raise TokenError("this is no decision token") from exc
        # Base64 has spellings that mean the same bytes; only the one that was given out counts.
        same = token == f"{_encoded(payload)}.{_encoded(signature)}"
        if not same or not hmac.compare_digest(_signature(payload, key), signature):
            raise TokenError("no server of this registry made this decision token")
        return cls.read(token)


def _signature(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)[:16]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
