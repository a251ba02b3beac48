"""A stored profile is read back as it was, and versions that differ in a row share the rest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from sqlalchemy import func, select
from traitroute.adapters import Registry
from traitroute.adapters.registry import schema
from traitroute.adapters.registry.profiles import CHUNK, cut
from traitroute.adapters.registry.summary import as_lists, pack, unpack

NUMBERS = st.integers(0, 300) | st.integers() | st.floats(allow_nan=False)
ROWS = st.lists(st.lists(NUMBERS, max_size=3), max_size=3)
ESTIMATE = st.fixed_dictionaries({"errors": st.lists(NUMBERS, max_size=2), "examples": ROWS})
SUMMARIES = st.fixed_dictionaries(
    {"adapters": st.lists(st.text(max_size=3))},
    optional={
        "scores": ROWS,
        "trait_scores": ROWS | st.none(),
        "paired": st.dictionaries(st.sampled_from(["won", "lost"]), ROWS),
        "estimated": st.dictionaries(st.text(max_size=3), ESTIMATE),
    },
)


def summary_of(count: int, **changes: Any) -> dict[str, Any]:
    """A summary of adapters that each have a row of 50 numbers."""
    rng = np.random.default_rng(0)
    names = [f"a{i}" for i in range(count)]
    estimate = {"errors": [0.25] * 50, "examples": [10] * 50}
    return {
        "adapters": names,
        "scores": rng.random((count, 50)).tolist(),
        "paired": {"won": rng.integers(0, 300, (count, 50)).tolist()},
        "estimated": dict.fromkeys(names[1:], estimate),
        **changes,
    }


def stored(registry: Registry) -> int:
    """Bytes of all chunks."""
    with registry._transaction() as connection:
        query = select(func.coalesce(func.sum(func.length(schema.chunks.c.data)), 0))
        return connection.execute(query).scalar_one()


@given(SUMMARIES)
def test_any_summary_comes_back(summary: dict[str, Any]) -> None:
    assert as_lists(unpack(*pack(summary))) == summary


def test_tables_come_back_with_their_types(registry: Registry) -> None:
    summary = summary_of(40)
    registry.put_profile(b"", summary)
    kept, quick = registry.latest_profile(), registry.latest_profile(arrays=True)
    assert kept is not None
    assert quick is not None
    assert quick.summary["paired"]["won"].dtype == np.uint16
    assert kept.summary == summary
    assert isinstance(kept.summary["paired"]["won"][0][0], int)


@pytest.mark.parametrize("scores", [[[1.0], [1.0, 2.0]], [["a"]], [], None])
def test_what_is_no_table_is_kept_as_it_is(registry: Registry, scores: Any) -> None:
    registry.put_profile(b"", {"scores": scores})
    assert registry.profile(1).summary == {"scores": scores}


@given(st.binary(max_size=2000) | st.integers(0, 3).map(lambda n: b"x" * (n * CHUNK + 7)))
def test_chunks_make_up_the_whole(blob: bytes) -> None:
    assert b"".join(cut(blob)) == blob
    assert max(map(len, cut(blob)), default=0) <= CHUNK


def test_one_more_row_writes_little_anew(registry: Registry) -> None:
    rows = {"far": np.random.default_rng(1).random((20_000, 100)), "near": np.ones((20_000, 2))}
    for more in (0, 1):
        grown = {name: np.vstack([a, a[:more]]) for name, a in rows.items()}
        registry.put_profile(save(grown), summary_of(3000 + more))
        assert registry.profile(1 + more).data == save(grown)
    first = len(save(rows))
    assert first < stored(registry) < first + 3_000_000


def test_chunks_of_forgotten_versions_go_and_others_stay(registry: Registry) -> None:
    random = np.random.default_rng(0).random((3, CHUNK))
    data = [save({"own": own, "shared": np.ones(CHUNK)}) for own in random]
    for each in data:
        registry.put_profile(each, {})
    before = stored(registry)
    registry.forget_profiles(keep=1)
    assert registry.profile(3).data == data[2]
    assert stored(registry) < before / 2
