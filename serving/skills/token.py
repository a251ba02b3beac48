"""Decision tokens: what was decided, signed, so that feedback needs no memory of the server that decided.

A token is `PAYLOAD.SIGNATURE`, both URL-safe base64 (RFC 4648, section 5) without padding. The payload is JSON and can be read by
anybody; the signature, 16 bytes of HMAC-SHA-256, shows that a server of the registry made it.
"""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Self

from ...adapters import InputError


class TokenError(InputError):
    """A text is no decision token."""


def _new_id() -> str:
    return secrets.token_urlsafe(9)


@dataclass(frozen=True)
class DecisionToken:
    """Who was chosen (None: base) by which profile version, with what predicted gain.

    `level` is the score that base alone was measured to have on the task that the request resembles most; with the gain
    it is the reward to expect.
    """

    adapter: str | None
    gain: float
    level: float | None
    version: int
    id: str = field(default_factory=_new_id)

    def sign(self, key: bytes) -> str:
        """The token."""
        rounded = {"gain": round(self.gain, 4), "level": self.level and round(self.level, 4)}
        content = asdict(self) | rounded
        payload = json.dumps(content, separators=(",", ":")).encode()
        return f"{_encoded(payload)}.{_encoded(_signature(payload, key))}"

    @classmethod
    def read(cls, token: str) -> Self:
        """What a token says, whoever made it.

        Raises:
            TokenError: it is none.
        """
        try:
            content = cls(**json.loads(_decoded(token.partition(".")[0])))
        except (ValueError, TypeError, RecursionError) as exc:
            raise TokenError("this is no decision token") from exc
        if type(content.version) is not int:
            raise TokenError("this is no decision token")
        return content

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
