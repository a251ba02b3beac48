"""The registry's feedback: decisions, and what became of them."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import ConflictError, DatabaseError, RegistryError, TooManyError
from ..feedback import Feedback
from . import tables as schema
from .database import Database

HOUR = timedelta(hours=1)
_table = schema.feedback


class FeedbackTable(Database):
    """Each decision is kept once and rewarded once; writing it does not change the revision."""

    def giver(self, identity: bytes) -> str:
        """What stands for who tells outcomes: a hash with the registry's own secret, so that no key is kept."""
        with self._transaction() as connection:
            secret = connection.execute(select(schema.meta.c.secret)).scalar_one()
        return hmac.digest(bytes.fromhex(secret), identity, hashlib.sha256).hex()[:32]

    def put_feedback(self, *decisions: Feedback, hourly: int | None = None) -> None:
        """Keep decisions, all or none; with `hourly`, no more of a giver's within an hour.

        Raises:
            ConflictError: a decision with one of the tokens is there already.
            TooManyError: a giver told so many already.
        """
        rows = [decision.model_dump() for decision in decisions]
        try:
            with self._writing() as connection:
                if rows:
                    connection.execute(insert(_table), rows)
                # Counted after writing, which in SQLite keeps other writers out meanwhile.
                if hourly is not None:
                    for giver in {decision.giver for decision in decisions}:
                        _check_rate(connection, giver, hourly)
        except DatabaseError as exc:
            if isinstance(exc.__cause__, IntegrityError):
                raise ConflictError(
                    "a decision with this token is there already: give each a token of its own"
                ) from exc
            raise

    def find_feedback(self, token: str) -> Feedback | None:
        """Return the decision with this token, or None where none was kept."""
        with self._transaction() as connection:
            row = connection.execute(select(_table).where(_table.c.token == token)).first()
        return None if row is None else Feedback.model_validate(dict(row._mapping))

    def reward_feedback(self, token: str, reward: float) -> Feedback:
        """Say how the decision with this token turned out, in [0, 1], and return it.

        Raises:
            RegistryError: there is no such decision, or the reward is outside [0, 1].
            ConflictError: its reward was told before.
        """
        # Written so that NaN is refused too.
        if not 0 <= reward <= 1:
            raise RegistryError(f"{reward} is no reward: give a number from 0 to 1")
        change = {"reward": reward, "rewarded_at": datetime.now(UTC)}
        untold = (_table.c.token == token) & _table.c.reward.is_(None)
        with self._writing() as connection:
            told = connection.execute(update(_table).where(untold).values(change)).rowcount
        found = self.find_feedback(token)
        if found is None:
            raise RegistryError("no decision with this token: give the one that the answer carried")
        if not told:
            raise ConflictError("the reward of this decision was told before, and is kept")
        return found

    def feedback(self, *, since: datetime | None = None) -> list[Feedback]:
        """List the decisions whose reward was told, in the order in which they were made; with `since`, later ones."""
        query = select(_table).where(_table.c.reward.is_not(None))
        if since is not None:
            query = query.where(_table.c.created_at >= since)
        query = query.order_by(_table.c.created_at)
        with self._transaction() as connection:
            rows = connection.execute(query)
            return [Feedback.model_validate(dict(row._mapping)) for row in rows]

    def forget_feedback(self, *, before: datetime) -> int:
        """Forget the decisions made before a time, and return how many they were."""
        with self._writing() as connection:
            return connection.execute(delete(_table).where(_table.c.created_at < before)).rowcount


def _check_rate(connection: Connection, giver: str | None, hourly: int) -> None:
    told, now = _table.c.rewarded_at, datetime.now(UTC)
    newest = select(told).where(_table.c.giver == giver, told > now - HOUR).order_by(told.desc())
    beyond = connection.execute(newest.offset(hourly).limit(1)).scalar()
    if beyond is not None:
        raise TooManyError(
            f"{hourly} outcomes an hour are taken with one API key (by a server without keys: from all "
            "alike), and were told: tell the rest later",
            wait_s=max((beyond + HOUR - now).total_seconds(), 1.0),
        )
