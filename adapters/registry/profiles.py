"""The registry's fitted profiles, as versions that are never changed but for labels; numbers are not used twice.

Large values are stored in chunks by their digest, each once: a profile with one more row shares almost all of them with
the version before.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from ..errors import ConflictError, RegistryError
from . import schema
from .database import Database
from .summary import ProfileSummary

Origin = Literal["fit", "row", "task", "rollback", "recalibration", "kind"]
"""How a version was made: fitted anew, by adding a row or a task, as a copy of an earlier version, from feedback, or by
adding or removing a judged kind of request."""

_SAME_PREDICTIONS = ("row", "recalibration", "kind")
"""Origins of versions that predict what their parent does for other adapters, corrections and judged kinds aside."""
_LONGEST_LABEL = 80
CHUNK = 2**16
"""Bytes: of smaller chunks there are too many to query, and of larger ones more is written anew for a row."""
_DIGESTS_A_QUERY = 500
_table, _chunks = schema.profiles, schema.chunks


@dataclass(frozen=True)
class ProfileVersion:
    """A version of the profile without its content: quick to list. `parent` is the version it was made from."""

    version: int
    created_at: datetime
    origin: str
    parent: int | None


@dataclass(frozen=True)
class StoredProfile:
    """One version of a fitted profile: safetensors bytes and a summary, last written in a `revision` of the registry.

    The summary is stored as `packed`, JSON and tables, and read when it is first asked for: routing does without it.
    """

    version: int
    data: bytes
    packed: tuple[dict[str, Any], bytes] = field(repr=False)
    created_at: datetime
    origin: str = "fit"
    parent: int | None = None
    revision: int = field(default=0, compare=False)

    @cached_property
    def summary(self) -> ProfileSummary:
        """What was measured, and the traits it gave.

        Raises:
            RegistryError: it is not a summary, or its parts do not fit together.
        """
        try:
            return ProfileSummary.unpack(*self.packed)
        except ValueError as exc:
            raise RegistryError(
                f"the summary of profile version {self.version} {_misfit(exc)}: run `traitroute profile` again"
            ) from exc


class ProfileTable(Database):
    """Servers route with the newest version."""

    _held: Mapping[str, bytes] = MappingProxyType({})
    """Chunks of the version that was read last, by digest: the next one shares most, and only others are read."""

    def put_profile(
        self,
        data: bytes,
        summary: ProfileSummary,
        *,
        origin: Origin = "fit",
        parent: int | None = None,
        ready: Collection[str] = (),
    ) -> int:
        """Store a profile as a new version, set the adapters named in `ready` to ready, and return its number.

        Raises:
            ConflictError: `parent`, from which it was made, is no longer the newest version; a rollback may have any.
        """
        with self._revising() as connection:
            version = self._insert_profile(connection, data, summary, origin, parent)
            adapters = schema.adapters
            change = {"state": "ready", "measured": True, "note": None} | self._authorship()
            for name in ready:
                connection.execute(update(adapters).where(adapters.c.name == name).values(change))
            return version

    def profile(self, version: int) -> StoredProfile:
        """Return one version of the profile.

        Raises:
            RegistryError: there is no such version.
        """
        with self.frozen(), self._transaction() as connection:
            row = connection.execute(select(_table).where(_table.c.version == version)).first()
            if row is None:
                raise RegistryError(_unknown(connection, version))
            return self._stored(connection, row)

    def latest_profile(self) -> StoredProfile | None:
        """Return the newest profile, or None where none was fitted."""
        query = select(_table).order_by(_table.c.version.desc()).limit(1)
        with self.frozen(), self._transaction() as connection:
            row = connection.execute(query).first()
            return None if row is None else self._stored(connection, row)

    def newest_profile(self) -> tuple[int, int] | None:
        """The newest profile's version, and the revision that last wrote it, without reading the profile."""
        query = select(_table.c.version, _table.c.revision).order_by(_table.c.version.desc())
        with self._transaction() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else (row.version, row.revision)

    def profile_versions(self) -> list[int]:
        """List the profile versions, oldest first."""
        return [each.version for each in self.profile_history()]

    def profile_history(self) -> list[ProfileVersion]:
        """List how each profile version came about, oldest first."""
        with self._transaction() as connection:
            return _history(connection)

    def lineage(self) -> list[int]:
        """List the newest version and those it was made from without a new fit, newest first: their features match."""
        history = {each.version: each for each in self.profile_history()}
        lineage = [max(history)] if history else []
        while lineage and history[lineage[-1]].origin in _SAME_PREDICTIONS:
            parent = history[lineage[-1]].parent
            if parent is None:
                break
            lineage.append(parent)
        return lineage

    def forget_profiles(self, *, keep: int) -> list[int]:
        """Remove all but the newest `keep` versions, and return the numbers of the removed ones.

        Raises:
            RegistryError: `keep` is below 1.
        """
        if keep < 1:
            raise RegistryError(f"{keep} profile versions cannot be kept: servers need at least 1")
        with self._revising() as connection:
            forgotten = [each.version for each in _history(connection)][:-keep]
            if forgotten:
                connection.execute(delete(_table).where(_table.c.version <= forgotten[-1]))
                _remove_unused_chunks(connection)
            return forgotten

    def set_trait_label(self, version: int, index: int, label: str) -> None:
        """Call component `index` (from 1) of a profile version `label`; an empty label removes it.

        Raises:
            RegistryError: there is no such version or component, or the label is longer than 80
                characters or has some that do not print.
        """
        label = _checked_label(label)
        with self._revising() as connection:
            row = connection.execute(select(_table).where(_table.c.version == version)).first()
            if row is None:
                raise RegistryError(_unknown(connection, version))
            traits = self._stored(connection, row).summary.traits
            if not 1 <= index <= len(traits):
                raise RegistryError(
                    f"profile version {version} has no component {index}: it has {len(traits)}, counted from 1"
                )
            labels = {i: kept for i, kept in {**traits.labels, index: label}.items() if kept}
            stored = row.summary | {"traits": row.summary["traits"] | {"labels": labels}}
            connection.execute(update(_table).where(_table.c.version == version).values(summary=stored))

    def _insert_profile(
        self, connection: Connection, data: bytes, summary: ProfileSummary, origin: Origin, parent: int | None
    ) -> int:
        """Insert the next version, within a transaction that raised the revision."""
        newest = connection.execute(select(func.max(_table.c.version))).scalar_one()
        if parent is not None and origin != "rollback" and parent != newest:
            raise ConflictError(
                f"this profile was made from version {parent}, but the newest is {newest or 'none'}: "
                "make it again from that one"
            )
        # Counted here and not by the database, whose sequences leave a gap where a transaction fails.
        version, (stored, tables) = (newest or 0) + 1, summary.pack()
        parts = {"routing": _put_chunks(connection, data), "summary": stored}
        parts["tables"] = _put_chunks(connection, tables)
        made = {"created_at": datetime.now(UTC), "origin": origin, "parent": parent}
        connection.execute(insert(_table).values({"version": version} | parts | made))
        return version

    def _stored(self, connection: Connection, row: Row[Any]) -> StoredProfile:
        held = _read_chunks(connection, (*row.routing, *row.tables), self._held)
        self._held = held
        return StoredProfile(
            version=row.version,
            data=b"".join(held[digest] for digest in row.routing),
            packed=(row.summary, b"".join(held[digest] for digest in row.tables)),
            created_at=row.created_at,
            origin=row.origin,
            parent=row.parent,
            revision=row.revision,
        )


def _misfit(exc: ValueError) -> str:
    """What is wrong with a stored summary, of which all missing parts are named and else the first misfit."""
    if not isinstance(exc, ValidationError):
        return f"cannot be read ({exc})"
    errors = [(".".join(map(str, each["loc"])), each["type"], each["msg"]) for each in exc.errors(include_url=False)]
    if lacks := [place for place, kind, _ in errors if kind == "missing"]:
        return f"lacks {', '.join(lacks)}"
    place, _, message = errors[0]
    message = message.removeprefix("Value error, ")
    return f"cannot be read ({place}: {message})" if place else f"cannot be read ({message})"


def _history(connection: Connection) -> list[ProfileVersion]:
    columns = (_table.c.version, _table.c.created_at, _table.c.origin, _table.c.parent)
    query = select(*columns).order_by(_table.c.version)
    return [ProfileVersion(**row._mapping) for row in connection.execute(query)]


def _unknown(connection: Connection, version: int) -> str:
    known = ", ".join(str(each.version) for each in _history(connection)) or "none yet"
    return f"no profile version {version}; versions: {known}"


def _checked_label(label: str) -> str:
    label = label.strip()
    if len(label) > _LONGEST_LABEL or not label.isprintable():
        raise RegistryError(
            f"{label[:_LONGEST_LABEL]!r} cannot be a trait's label: "
            f"use 1 to {_LONGEST_LABEL} printable characters, or none to remove the label"
        )
    return label


def cut(blob: bytes) -> list[bytes]:
    """Cut a safetensors file where its tensors begin, and each tensor every `CHUNK` bytes; other bytes every `CHUNK`.

    So a tensor to which a row is appended keeps all its full chunks.
    """
    places = [0, *_tensor_starts(blob), len(blob)]
    return [blob[i : min(i + CHUNK, end)] for start, end in pairwise(places) for i in range(start, end, CHUNK)]


def _tensor_starts(blob: bytes) -> list[int]:
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        tensors = [part for name, part in header.items() if name != "__metadata__"]
        return sorted({8 + length + tensor["data_offsets"][0] for tensor in tensors})
    except (ValueError, AttributeError, KeyError, TypeError):
        return []


def _put_chunks(connection: Connection, blob: bytes) -> list[str]:
    """Store a value, within a transaction that raised the revision, and return the digests of its chunks in order."""
    chunks = [(hashlib.sha256(chunk).hexdigest(), chunk) for chunk in cut(blob)]
    missing = dict(chunks)
    for batch in _batches(list(missing)):
        query = select(_chunks.c.digest).where(_chunks.c.digest.in_(batch))
        for digest in connection.execute(query).scalars().all():
            del missing[digest]
    if missing:
        rows = [{"digest": digest, "data": chunk} for digest, chunk in missing.items()]
        connection.execute(insert(_chunks), rows)
    return [digest for digest, _ in chunks]


def _read_chunks(connection: Connection, digests: Sequence[str], held: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the chunks with these digests, of which those `held` are not read again.

    Raises:
        RegistryError: one is missing or damaged.
    """
    wanted = dict.fromkeys(digests)
    chunks: dict[str, bytes] = {digest: held[digest] for digest in wanted if digest in held}
    for batch in _batches([digest for digest in wanted if digest not in chunks]):
        query = select(_chunks.c.digest, _chunks.c.data).where(_chunks.c.digest.in_(batch))
        read = {row.digest: row.data for row in connection.execute(query)}
        if any(hashlib.sha256(read.get(digest, b"")).hexdigest() != digest for digest in batch):
            raise RegistryError(
                "a part of the profile is missing or damaged: restore the registry from a backup, or profile again"
            )
        chunks |= read
    return chunks


def _remove_unused_chunks(connection: Connection) -> None:
    """Remove the chunks that no profile uses."""
    rows = connection.execute(select(_table.c.routing, _table.c.tables))
    kept = {digest for row in rows for digest in (*row.routing, *row.tables)}
    known = connection.execute(select(_chunks.c.digest)).scalars()
    for batch in _batches(sorted(set(known) - kept)):
        connection.execute(delete(_chunks).where(_chunks.c.digest.in_(batch)))


def _batches(digests: Sequence[str]) -> Iterable[Sequence[str]]:
    starts = range(0, len(digests), _DIGESTS_A_QUERY)
    return (digests[i : i + _DIGESTS_A_QUERY] for i in starts)
