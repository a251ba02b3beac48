"""The registry's record of the stream of requests."""

from datetime import datetime

from sqlalchemy import delete, insert, select

from ..demand_window import DemandWindow
from . import tables as schema
from .database import Database

KEPT_WINDOWS = 5000
_table = schema.demand_windows


class DemandTable(Database):
    """The newest windows of all servers; writing them does not change the revision."""

    def put_demand_window(self, window: DemandWindow) -> None:
        """Keep a window, and forget the oldest of more than KEPT_WINDOWS."""
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
