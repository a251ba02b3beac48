"""Large values in pieces that are kept once: a profile with one more row shares almost all of them with the one before."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from sqlalchemy import Connection, delete, insert, select

from ..errors import RegistryError
from .tables import pieces, profiles

PIECE = 2**18
"""Bytes: of smaller ones there are too many to ask for, of larger ones more is written anew for a row."""
_DIGESTS_A_QUERY = 500


def cut(blob: bytes) -> list[bytes]:
    """Cut a safetensors file where its tensors begin, and each every `PIECE` bytes.

    A tensor that a row is appended to keeps all its whole pieces. Other bytes are cut every `PIECE` bytes.
    """
    places = [0, *_beginnings(blob), len(blob)]
    return [blob[i : min(i + PIECE, end)] for start, end in pairwise(places) for i in range(start, end, PIECE)]


def _beginnings(blob: bytes) -> list[int]:
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        tensors = [part for name, part in header.items() if name != "__metadata__"]
        return sorted({8 + length + tensor["data_offsets"][0] for tensor in tensors})
    except (ValueError, AttributeError, KeyError, TypeError):
        return []


def put_chunks(connection: Connection, blob: bytes) -> list[str]:
    """Keep a value, within a transaction that raised the revision, and return the digests of its pieces in order."""
    cuts = [(hashlib.sha256(piece).hexdigest(), piece) for piece in cut(blob)]
    missing = dict(cuts)
    for digest in _known(connection, list(missing)):
        del missing[digest]
    if missing:
        rows = [{"digest": digest, "data": piece} for digest, piece in missing.items()]
        connection.execute(insert(pieces), rows)
    return [digest for digest, _ in cuts]


def read_chunks(connection: Connection, digests: Sequence[str]) -> bytes:
    """The value whose pieces have these digests.

    Raises:
        RegistryError: one is not there, or not as it was written.
    """
    found: dict[str, bytes] = {}
    for batch in _batches(digests):
        query = select(pieces.c.digest, pieces.c.data).where(pieces.c.digest.in_(batch))
        found |= {row.digest: row.data for row in connection.execute(query)}
    for digest in set(digests):
        if hashlib.sha256(found.get(digest, b"")).hexdigest() != digest:
            raise RegistryError(
                "a piece of the profile is missing or damaged: restore the registry from a backup, or profile again"
            )
    return b"".join(found[digest] for digest in digests)


def forget_chunks(connection: Connection) -> None:
    """Remove the pieces that no profile is made of."""
    rows = connection.execute(select(profiles.c.routing, profiles.c.matrices))
    kept = {digest for row in rows for digest in (*row.routing, *row.matrices)}
    known = connection.execute(select(pieces.c.digest)).scalars()
    for batch in _batches(sorted(set(known) - kept)):
        connection.execute(delete(pieces).where(pieces.c.digest.in_(batch)))


def _known(connection: Connection, digests: Sequence[str]) -> Iterator[str]:
    for batch in _batches(digests):
        query = select(pieces.c.digest).where(pieces.c.digest.in_(batch))
        yield from connection.execute(query).scalars().all()


def _batches(digests: Sequence[str]) -> Iterable[Sequence[str]]:
    starts = range(0, len(digests), _DIGESTS_A_QUERY)
    return (digests[i : i + _DIGESTS_A_QUERY] for i in starts)
