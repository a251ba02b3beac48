"""How routing decisions turned out, as reported afterwards, in the registry: numbers and names, never text."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..adapter import Name
from ..errors import ConflictError, DatabaseError, RegistryError, TooManyError
from . import schema
from .database import Database

HOUR = timedelta(hours=1)
_table = schema.feedback
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{1,512}$")]
Reward = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FeedbackSource(StrEnum):
    """Who says how a decision turned out: the user by default, or a program on its own account.

    `checker` is the operator's own check of the answer, `judge` a model's, and `comparison` says which of two answers
    was better. `format` and `answered` are what a server sees of its own answers.
    """

    USER = "user"
    CHECKER = "checker"
    JUDGE = "judge"
    COMPARISON = "comparison"
    FORMAT = "format"
    ANSWERED = "answered"


class Feedback(BaseModel):
    """One decision, by its token: `adapter` (None: base), the gain predicted for it, and the reward once reported.

    `reporter` stands for the API key that reported it, as `Registry.reporter` hashes it, or for the server where there
    are no keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: Token
    source: FeedbackSource = FeedbackSource.USER
    adapter: Name | None
    predicted_gain: Annotated[float, Field(allow_inf_nan=False)]
    profile_version: int | None = None
    reward: Reward | None = None
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    rewarded_at: datetime | None = None
    reporter: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None


class FeedbackTable(Database):
    """Each decision is recorded and rewarded once by each source; writing it does not change the revision."""

    def reporter(self, identity: bytes) -> str:
        """Hash who reports outcomes with the registry's own secret, so that no API key is stored."""
        return hmac.digest(self._secret(), identity, hashlib.sha256).hex()[:32]

    def key_for(self, purpose: bytes) -> bytes:
        """A key for one purpose, which every server of the registry can derive and which stays the same for good."""
        return hmac.digest(self._secret(), b"key for " + purpose, hashlib.sha256)

    def _secret(self) -> bytes:
        with self._transaction() as connection:
            return bytes.fromhex(connection.execute(select(schema.meta.c.secret)).scalar_one())

    def put_feedback(self, *decisions: Feedback, hourly: int | None = None) -> None:
        """Record decisions, all or none; with `hourly`, at most so many of one reporter within an hour.

        Raises:
            ConflictError: a decision with one of the tokens is there already, from the same source.
            TooManyError: a reporter exceeds the limit.
        """
        rows = [decision.model_dump() for decision in decisions]
        try:
            with self._writing() as connection:
                if rows:
                    connection.execute(insert(_table), rows)
                # Counted after writing, which in SQLite keeps other writers out meanwhile.
                if hourly is not None:
                    for reporter in {decision.reporter for decision in decisions}:
                        _check_rate(connection, reporter, hourly)
        except DatabaseError as exc:
            if isinstance(exc.__cause__, IntegrityError):
                raise ConflictError(
                    "a decision with this token is there already: give each a token of its own"
                ) from exc
            raise

    def find_feedback(self, token: str, *, source: FeedbackSource = FeedbackSource.USER) -> Feedback | None:
        """Return what a source says of the decision with this token, or None where it says nothing."""
        with self._transaction() as connection:
            row = connection.execute(select(_table).where(_table.c.token == token, _table.c.source == source)).first()
        return None if row is None else Feedback.model_validate(dict(row._mapping))

    def reward_feedback(self, token: str, reward: float, *, source: FeedbackSource = FeedbackSource.USER) -> Feedback:
        """Record how the decision with this token turned out, in [0, 1], and return it.

        Raises:
            RegistryError: there is no such decision, or the reward is outside [0, 1].
            ConflictError: its reward was reported before.
        """
        # Written so that NaN is refused too.
        if not 0 <= reward <= 1:
            raise RegistryError(f"{reward} is no reward: give a number from 0 to 1")
        change = {"reward": reward, "rewarded_at": datetime.now(UTC)}
        unrewarded = (_table.c.token == token) & (_table.c.source == source) & _table.c.reward.is_(None)
        with self._writing() as connection:
            changed = connection.execute(update(_table).where(unrewarded).values(change)).rowcount
        decision = self.find_feedback(token, source=source)
        if decision is None:
            raise RegistryError("no decision with this token: give the one that the answer carried")
        if not changed:
            raise ConflictError("the reward of this decision was reported before, and is kept")
        return decision

    def feedback(
        self,
        *,
        since: datetime | None = None,
        source: FeedbackSource | None = FeedbackSource.USER,
        newest: int | None = None,
    ) -> list[Feedback]:
        """List the decisions that `source` (None: any) rewarded, in the order in which they were made.

        With `since`, those from its second on, since decisions are dated to the second; with `newest`, no more than so
        many, the last.
        """
        query = select(_table).where(_table.c.reward.is_not(None))
        if source is not None:
            query = query.where(_table.c.source == source)
        if since is not None:
            query = query.where(_table.c.created_at >= since.replace(microsecond=0))
        with self._transaction() as connection:
            # Of one second the order must be the same each time: sequences of outcomes are looked at again and again.
            latest = query.order_by(*(_table.c[name].desc() for name in ("created_at", "token", "source")))
            rows = connection.execute(latest.limit(newest)).all()[::-1]
            return [Feedback.model_validate(dict(row._mapping)) for row in rows]

    def forget_feedback(self, *, before: datetime) -> int:
        """Remove the decisions made before a time, and return how many they were."""
        with self._writing() as connection:
            return connection.execute(delete(_table).where(_table.c.created_at < before)).rowcount


def _check_rate(connection: Connection, reporter: str | None, hourly: int) -> None:
    at, now = _table.c.rewarded_at, datetime.now(UTC)
    newest = select(at).where(_table.c.reporter == reporter, at > now - HOUR).order_by(at.desc())
    beyond = connection.execute(newest.offset(hourly).limit(1)).scalar()
    if beyond is not None:
        raise TooManyError(
            f"{hourly} outcomes an hour are taken with one API key (by a server without keys: from all "
            "together), and were reported: report the rest later",
            wait_s=max((beyond + HOUR - now).total_seconds(), 1.0),
        )
