"""A few texts of recurring requests that nothing profiled is like, in the registry: encrypted, and for some hours only.

The key is not here: who has the registry alone, or a copy of it, reads no text. What has expired is given to nobody,
and is removed as soon as anybody writes or removes samples.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load
from sqlalchemy import delete, func, insert, select

from . import schema
from .database import Database

_table = schema.samples


class Sample(BaseModel):
    """A request that recurs: its encrypted `text`, and its `features`, packed as those of a `DemandWindow`.

    `kind` names the requests that it is like. `tenant` is whose key sent it, None for a key of the operator's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    expires_at: datetime
    profile_version: int
    tenant: str | None = None
    features: bytes = Field(repr=False)
    text: bytes = Field(repr=False)

    def row(self) -> NDArray[np.float64]:
        """The features, (p,)."""
        return load(self.features)["features"][0].astype(np.float64)


class SampleTable(Database):
    """The samples of all servers; writing them does not change the revision."""

    def put_samples(self, samples: Sequence[Sample], *, each: int, in_all: int) -> int:
        """Store as many as keep a kind within `each` and all within `in_all`; return how many were stored."""
        with self._writing() as connection:
            connection.execute(delete(_table).where(_table.c.expires_at <= datetime.now(UTC)))
            counted = select(_table.c.kind, func.count()).group_by(_table.c.kind)
            counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted)}
            stored = 0
            for sample in samples:
                if counts.get(sample.kind, 0) < each and sum(counts.values()) < in_all:
                    connection.execute(insert(_table).values(sample.model_dump()))
                    counts[sample.kind] = counts.get(sample.kind, 0) + 1
                    stored += 1
            return stored

    def samples(self, kind: str | None = None) -> list[Sample]:
        """List the samples that have not expired, oldest first; of one kind, or all."""
        columns = (_table.c[field] for field in Sample.model_fields)
        query = select(*columns).where(_table.c.expires_at > datetime.now(UTC))
        if kind is not None:
            query = query.where(_table.c.kind == kind)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_table.c.number)).all()
        return [Sample.model_validate(dict(row._mapping)) for row in rows]

    def forget_samples(self, kind: str | None = None) -> int:
        """Remove the samples of a kind, or all, and return how many there were."""
        chosen = _table.c.kind == kind if kind is not None else _table.c.number.is_not(None)
        with self._writing() as connection:
            return connection.execute(delete(_table).where(chosen)).rowcount

    def forget_expired_samples(self) -> None:
        """Remove what has expired; where nothing has, nothing is written."""
        expired = _table.c.expires_at <= datetime.now(UTC)
        with self._transaction() as connection:
            if connection.execute(select(_table.c.number).where(expired).limit(1)).first() is None:
                return
        with self._writing() as connection:
            connection.execute(delete(_table).where(expired))
