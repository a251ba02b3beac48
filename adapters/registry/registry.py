"""The registry: adapters, tasks, measured cells, fitted profiles and feedback, in a file or a PostgreSQL database.

The weights of `team.db` are beside it in `team.weights/`; those of a database are in the folder `$TRAITROUTE_WEIGHTS`.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from sqlalchemy import RowMapping, func, insert, select, update

from ..adapter import Adapter, AdapterState
from ..errors import RegistryError, WeightsError
from ..weights.store import WeightStore
from . import schema
from .canaries import CanaryTable
from .cells import CellTable
from .feedback import FeedbackTable
from .location import Location, Place
from .postgresql import RegistryServer, open_database
from .profiles import Origin, ProfileTable
from .samples import SampleTable
from .sqlite import RegistryFile, create_file
from .summary import ProfileSummary
from .traffic import DemandTable

_ROWS_AT_ONCE = 200
_TABLES = [table for table in schema.metadata.sorted_tables if table is not schema.meta]


class Registry(CanaryTable, CellTable, ProfileTable, FeedbackTable, DemandTable, SampleTable):
    """Everything that is known of a base model's adapters; safe to use from several threads."""

    _weights: Path | None = None

    @classmethod
    def create(cls, given: Place, *, weights: Path | None = None, author: str | None = None) -> Self:
        """Open the registry at a path or URL, making an empty one where there is none."""
        location = Location.parse(given)
        if location.url is not None:
            open_database(location.url, read_only=False, create=True).dispose()
        elif location.path is not None and not location.path.exists():
            create_file(location.path.resolve())
        return cls.open(location, weights=weights, author=author)

    @classmethod
    def open(
        cls, given: Place, *, read_only: bool = False, weights: Path | None = None, author: str | None = None
    ) -> Self:
        """Open the registry at a path, or at a URL `postgresql+psycopg://USER@HOST/DATABASE`.

        `weights` is the folder of the weights, by default the one beside the file, or `$TRAITROUTE_WEIGHTS` for a URL;
        `author` who makes the changes, by default the user of this machine.

        Raises:
            RegistryError: there is none, or its schema is unknown.
            DatabaseError: it cannot be reached or read.
        """
        location = Location.parse(given).absolute()
        if location.url is not None:
            backend = RegistryServer(location.url, read_only=read_only)
        else:
            backend = RegistryFile(location.path or Path(), read_only=read_only)
        registry = cls(backend, location.resolve(), read_only=read_only, author=author)
        registry._weights = weights
        return registry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def weights(self) -> WeightStore:
        """The store of the adapters' weights.

        Raises:
            RegistryError: the registry is on a server, and $TRAITROUTE_WEIGHTS is not set.
        """
        if self._weights is not None:
            return WeightStore(self._weights)
        if self.location.path is not None:
            return WeightStore(self.location.beside(".weights"))
        if not (folder := os.environ.get("TRAITROUTE_WEIGHTS")):
            raise RegistryError(
                f"where are the weights of {self.location}? Set TRAITROUTE_WEIGHTS to a folder "
                "that every server and administrator shares"
            )
        return WeightStore(Path(folder))

    def named_weights(self) -> frozenset[str]:
        """The digests of the weights that an adapter, a pending replacement or a version of the profile names."""
        columns = (schema.adapters.c.weights_digest, schema.replacements.c.weights_digest)
        profiled = select(schema.profiles.c.summary["weights"])
        with self.frozen(), self._transaction() as connection:
            named = {d for c in columns for d in connection.execute(select(c)).scalars()}
            for weights in connection.execute(profiled).scalars():
                named.update((weights or {}).values())
        return frozenset(named)

    def servable(self) -> list[Adapter]:
        """List the adapters that a vLLM server may load: not disabled, and of a method it runs.

        A pending replacement is among them as NAME@VERSION, by which it can be measured where it will be served.
        """
        return servable(self.adapters(), self.replacements())

    def admit(
        self, measured: Adapter, data: bytes, summary: ProfileSummary, *, parent: int | None, origin: Origin = "row"
    ) -> int:
        """Make a measured adapter routable together with the profile that holds its row; return the profile's version.

        A pending replacement takes its name over here. All happens in one transaction, so no server sees the new
        weights with the old row. `parent` is the version that the profile was made from.

        Raises:
            ConflictError: another profile or other weights came first; nothing is changed.
        """
        with self._revising() as connection:
            version = self._insert_profile(connection, data, summary, origin, parent)
            self._admit_measured(connection, measured)
            return version


def servable(adapters: Iterable[Adapter], replacements: Iterable[Adapter]) -> list[Adapter]:
    """See `Registry.servable`, of adapters and pending replacements that were read."""
    named = [each.model_copy(update={"name": _alias(each)}) for each in replacements]
    return [each for each in [*adapters, *named] if each.vllm_serves and each.state is not AdapterState.DISABLED]


def _alias(replacement: Adapter) -> str:
    """A name that no adapter can have, so that it collides with none."""
    return f"{replacement.name}@{replacement.version}"


def copy_registry(
    source: Registry, target: Registry, *, on_part: Callable[[str, int], None] = lambda part, count: None
) -> None:
    """Copy everything in `source`, weights first, into `target`, which must be empty.

    `on_part` is called with each part that was copied, and its count.

    Nothing else may write to `source` meanwhile. Where it fails, `target` holds no rows.

    Raises:
        RegistryError: `target` holds something already.
        WeightsError: weights of an adapter are missing or have changed.
    """
    with source._transaction() as reading, target._revising() as writing:
        for table in _TABLES:
            if writing.execute(select(func.count()).select_from(table)).scalar_one():
                raise RegistryError(f"{target.location} holds {table.name} already: give an empty one to copy to")
        on_part("weights", _copy_weights(source, target))
        secret = reading.execute(select(schema.meta.c.secret)).scalar_one()
        writing.execute(update(schema.meta).values(secret=secret))
        for table in _TABLES:
            count = 0
            for rows in reading.execute(select(table)).mappings().partitions(_ROWS_AT_ONCE):
                writing.execute(insert(table), [_unrevised(row) for row in rows])
                count += len(rows)
            on_part(table.name, count)


def _unrevised(row: RowMapping) -> dict[str, Any]:
    """The row without its revision: revisions are counted anew in each registry."""
    return {str(column): value for column, value in row.items() if column != "revision"}


def _copy_weights(source: Registry, target: Registry) -> int:
    wanted = {a.weights_digest for a in [*source.adapters(), *source.replacements()]}
    if source.weights.root == target.weights.root:
        return 0
    for digest in sorted(wanted):
        copied = target.weights.add(source.weights.path(digest)).digest
        if copied != digest:
            raise WeightsError(
                f"the weights in {source.weights.path(digest)} have changed: their digest is now "
                f"{copied}; restore them, or remove their adapter"
            )
    return len(wanted)
