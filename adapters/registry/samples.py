"""A few texts of recurring requests that nothing profiled is like, in the registry: encrypted, and for some hours only.

The key is not here: who has the registry alone, or a copy of it, reads no text. What has expired is given to nobody,
and is removed as soon as anybody writes or removes samples. What comparing adapters on them gave stays, as figures.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load
from sqlalchemy import Delete, Table, delete, func, insert, select

from . import schema
from .database import Database

_table, _compared = schema.samples, schema.comparisons
_APART = ("kind", "profile_version", "compared_at", "features")
"""What has a column of its own."""


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


class KindComparison(BaseModel):
    """What comparing base and `adapters`, of these `weights`, on a kind's `requests` gave; `by` says how.

    Each adapter has a mean of `verdicts` on so many `counts` of its answers, the `predicted` mean gain, the one
    believed after the verdicts, of `gains`, and its standard error, of `errors`. `before` are the shares of the
    requests that the profile gives each adapter now, `after` those with what was found; base has the rest. That is
    better by `lead`, `low` being the lower bound. Where it could not be found out, `refused` says why.
    `features` are those of the requests, packed as a `DemandWindow`'s.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    profile_version: int
    compared_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    by: str
    requests: int
    refused: str | None = None
    adapters: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    verdicts: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    predicted: tuple[float, ...] = ()
    gains: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    lead: float = 0.0
    low: float = 0.0
    features: bytes = Field(default=b"", repr=False)

    @property
    def worth_it(self) -> bool:
        """Whether what was found is surely better to go by."""
        return self.refused is None and self.low > 0

    def rows(self) -> NDArray[np.float64]:
        """The features of the requests, (n, p)."""
        return load(self.features)["features"].astype(np.float64)


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
        """Remove the samples of a kind, or all, with what comparing on them gave; return how many samples there
        were."""

        def chosen(table: Table) -> Delete:
            return delete(table) if kind is None else delete(table).where(table.c.kind == kind)

        with self._writing() as connection:
            connection.execute(chosen(_compared))
            return connection.execute(chosen(_table)).rowcount

    def put_comparison(self, comparison: KindComparison) -> None:
        """Keep what comparing on a kind gave, in the place of what an earlier one did."""
        figures = comparison.model_dump(mode="json", exclude=set(_APART))
        with self._writing() as connection:
            connection.execute(delete(_compared).where(_compared.c.kind == comparison.kind))
            apart = {name: getattr(comparison, name) for name in _APART}
            connection.execute(insert(_compared).values(figures=figures, **apart))

    def comparisons(self) -> list[KindComparison]:
        """List what comparing gave, the newest first."""
        with self._transaction() as connection:
            rows = connection.execute(select(_compared).order_by(_compared.c.compared_at.desc())).all()
        return [KindComparison.model_validate(row.figures | {n: getattr(row, n) for n in _APART}) for row in rows]

    def forget_expired_samples(self) -> None:
        """Remove what has expired; where nothing has, nothing is written."""
        expired = _table.c.expires_at <= datetime.now(UTC)
        with self._transaction() as connection:
            if connection.execute(select(_table.c.number).where(expired).limit(1)).first() is None:
                return
        with self._writing() as connection:
            connection.execute(delete(_table).where(expired))
