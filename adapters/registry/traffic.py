"""What servers saw of the stream of requests, in the registry: counts, and features of some; never text."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load, save
from sqlalchemy import delete, insert, select

from . import schema
from .database import Database

KEPT_WINDOWS = 5000
_table = schema.demand_windows


class DemandWindow(BaseModel):
    """A stretch of time on one server: of `requests` routed with a profile version, `novel` were unlike any profiled.

    `features` are those of some of the novel ones: a safetensors blob of one array, (sampled, p) in float16, of hashed
    words projected on the directions that the profiled requests span.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile_version: int
    requests: int = Field(ge=0)
    novel: int = Field(ge=0)
    features: bytes
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @staticmethod
    def pack(rows: Sequence[NDArray[np.float64]]) -> bytes:
        """Pack feature vectors of shape (p,) into a blob."""
        stacked = np.array(rows, np.float16).reshape(len(rows), len(rows[0]) if len(rows) else 0)
        return save({"features": stacked})

    def rows(self) -> NDArray[np.float64]:
        """Return the features, (sampled, p)."""
        return load(self.features)["features"].astype(np.float64)


class DemandTable(Database):
    """The newest windows of all servers; writing them does not change the revision."""

    def put_demand_window(self, window: DemandWindow) -> None:
        """Record a window, and remove the oldest beyond KEPT_WINDOWS."""
        number = _table.c.number
        with self._writing() as connection:
            added = insert(_table).values(window.model_dump()).returning(number)
            newest = connection.execute(added).scalar_one()
            connection.execute(delete(_table).where(number <= newest - KEPT_WINDOWS))

    def demand_windows(self, *, since: datetime | None = None) -> list[DemandWindow]:
        """List the windows, oldest first; with `since`, later ones."""
        query = select(*(_table.c[field] for field in DemandWindow.model_fields))
        if since is not None:
            query = query.where(_table.c.created_at >= since)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_table.c.number))
            return [DemandWindow.model_validate(dict(row._mapping)) for row in rows]
