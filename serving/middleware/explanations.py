"""Explained decisions: by id at `GET /v1/decisions/{id}`, and in the header `x-traitroute-decision`.

The header's value is the URL-safe base64 (RFC 4648, section 5) of compact JSON, with numbers rounded to four
decimals. Where that is longer than 6 KiB the parts of the demand go first, then all but three of the ranking, then
the header; the decision by id is always whole. Neither holds any of the request's text.
"""

import base64
import json
import uuid
from typing import Any, Self

from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict

from ...router import RoutingDecision
from ..state import BASE
from .choice import Choice, RawHeaders

DECISIONS = "/v1/decisions/"
MAX_HEADER_BYTES = 6 * 1024
KEPT = 1000
"""How many explained decisions a process keeps."""


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


class Explanations:
    """The last explained decisions of this process, as JSON by id."""

    def __init__(self, kept: int = KEPT) -> None:
        self._by_id: LRUCache[str, str] = LRUCache(maxsize=kept)

    def keep(self, explanation: Explanation) -> None:
        """Remember one."""
        self._by_id[explanation.id] = explanation.model_dump_json()

    def find(self, decision_id: str) -> str | None:
        """Return one as JSON, or None where it is not, or no longer, kept here."""
        return self._by_id.get(decision_id)


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
