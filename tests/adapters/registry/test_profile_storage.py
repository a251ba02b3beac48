"""A stored profile is read back as it was, and versions that differ in a row share the rest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_summary import damage_summary, made_up_summary, made_up_traits
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sqlalchemy import event, func, select
from traitroute.adapters import Estimates, NewRow, PairedOutcomes, ProfileSummary, Registry, RegistryError
from traitroute.adapters.registry import schema
from traitroute.adapters.registry.profiles import CHUNK, cut

NAMES = st.lists(st.text(max_size=3), max_size=3, unique=True)
COUNTS = ("differing", "examples")


@st.composite
def summaries(draw: st.DrawFn) -> ProfileSummary:
    adapters, tasks, r = draw(NAMES), draw(NAMES), draw(st.integers(1, 3))
    estimated = tuple(name for name in adapters if draw(st.booleans()))

    def table(rows: int, columns: int, numbers: st.SearchStrategy[Any], kind: type = float) -> NDArray[Any]:
        values = draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
        return np.array(values, kind).reshape(rows, columns)

    floats, counts = st.floats(allow_nan=False), st.integers(0, 70_000)
    shape, rows = (len(adapters), len(tasks)), (len(estimated), len(tasks))
    return made_up_summary(
        adapters,
        tasks,
        scores=table(*shape, floats),
        trait_scores=table(len(adapters), r, floats),
        paired=PairedOutcomes(squares=table(*shape, counts), **{name: table(*shape, counts, int) for name in COUNTS}),
        estimated=Estimates(adapters=estimated, errors=table(*rows, floats), examples=table(*rows, counts, int)),
        traits=made_up_traits(table(r, len(tasks), st.floats(-1, 1)), labels={1: "stops early"}),
    )


def summary_of(count: int) -> ProfileSummary:
    """A summary of adapters that each have a row of 50 numbers."""
    rng = np.random.default_rng(0)
    names = [f"a{i}" for i in range(count)]
    zeros = np.zeros((count, 50), int)
    errors, examples = np.full((count - 1, 50), 0.25), np.full((count - 1, 50), 10)
    return made_up_summary(
        names,
        [f"t{i}" for i in range(50)],
        scores=rng.random((count, 50)),
        paired=PairedOutcomes(differing=rng.integers(0, 300, (count, 50)), squares=zeros, examples=zeros),
        estimated=Estimates(adapters=tuple(names[1:]), errors=errors, examples=examples),
    )


def stored(registry: Registry) -> int:
    """Bytes of all chunks."""
    with registry._transaction() as connection:
        query = select(func.coalesce(func.sum(func.length(schema.chunks.c.data)), 0))
        return connection.execute(query).scalar_one()


@pytest.mark.slow
@given(summaries())
def test_any_summary_comes_back(summary: ProfileSummary) -> None:
    packed = summary.pack()
    assert ProfileSummary.unpack(*packed) == summary
    assert "scores" not in packed[0]


def test_tables_are_kept_in_their_smallest_type(registry: Registry) -> None:
    summary = summary_of(40)
    registry.put_profile(b"", summary)
    kept = registry.profile(1)
    assert load(kept.packed[1])["paired.differing"].dtype == np.uint16
    assert kept.summary == summary
    assert kept.summary.paired.differing.dtype == np.int64


def test_sums_of_squares_are_kept_whole_where_they_are_and_else_to_seven_digits() -> None:
    whole, graded = np.array([[3001.0]]), np.array([[3001.25]])
    for squares, kind in ((whole, np.uint16), (graded, np.float32)):
        paired = PairedOutcomes(differing=np.array([[3001]]), squares=squares, examples=np.array([[4000]]))
        packed = made_up_summary(["a"], ["t"], paired=paired).pack()
        assert load(packed[1])["paired.squares"].dtype == kind
        assert ProfileSummary.unpack(*packed).paired.squares.tolist() == squares.tolist()


@pytest.mark.parametrize("scores", [[[1.0], [1.0, 2.0]], [["a"]], [], None, [[1.0], [2.0]]])
def test_what_is_no_table_of_the_right_shape_is_refused(scores: Any) -> None:
    with pytest.raises(ValueError, match="scores"):
        made_up_summary(["a"], ["t"], scores=scores)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"base": None, "traits": None}, "of profile version 1 lacks base, traits: run `traitroute profile` again"),
        ({"k": 1}, r"cannot be read \(k: Extra inputs"),
        ({"adapters": ["a"]}, r"cannot be read \(scores has shape \(2, 1\), \(1, 1\) expected"),
        ({"weights": {}}, "no weights of a, b"),
    ],
)
def test_a_summary_that_does_not_fit_is_refused_when_read(registry: Registry, parts: Any, message: str) -> None:
    registry.put_profile(b"routes", made_up_summary(["a", "b"], ["t"]))
    damage_summary(registry, 1, **parts)
    found = registry.profile(1)
    assert found.data == b"routes"
    with pytest.raises(RegistryError, match=message):
        _ = found.summary


def test_a_row_joins_and_leaves_again() -> None:
    before = made_up_summary(["a", "b"], ["t", "u"], base=[0.5, 0.25], traits=made_up_traits([[1.0, 0.0]]))
    gains, errors = np.array([0.5, 0.25]), np.array([0.1, 0.2])
    row = NewRow("c", "1" * 64, ("t", "u"), gains, errors, np.array([3, 4]), ("k",))
    after = before.with_row(row)
    assert (after.adapters, after.joined, after.whole) == (("a", "b", "c"), ("c",), ("a", "b"))
    assert after.scores[2].tolist() == [1.0, 0.5]
    assert after.trait_scores[2].tolist() == [0.5]
    assert after.estimated.examples.tolist() == [[3, 4]]
    assert after.without(["c"], []) == before
    paired = PairedOutcomes.of([np.array([[0.5], [0.0]]), np.array([[1.0], [-1.0]])])
    whole = after.with_row(
        NewRow("c", "2" * 64, ("t", "u"), gains, 0 * errors, np.array([2, 2]), ("k",), paired=paired)
    )
    assert (whole.whole, whole.cells) == (("a", "b", "c"), ("k",))
    assert whole.paired.differing[2].tolist() == [1, 2]
    assert whole.paired.squares[2].tolist() == [0.25, 2.0]


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
    assert first < stored(registry) < first + 3_500_000


def test_of_the_next_version_only_what_is_new_is_read(registry: Registry) -> None:
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "chunks.data" in statement:
            asked.extend(parameters.values() if isinstance(parameters, dict) else parameters)

    for own in (1, 2):
        registry.put_profile(save({"own": np.full(3, own), "shared": np.ones(CHUNK)}), made_up_summary())
    event.listen(registry._backend.engine, "before_cursor_execute", note)
    read = []
    for number, own in ((1, 1), (2, 2), (1, 1)):
        asked.clear()
        assert load(registry.profile(number).data)["own"].tolist() == [own] * 3
        read.append(len(asked))
    assert read[0] > 3
    assert read[1:] == [1, 1]


def test_chunks_of_forgotten_versions_go_and_others_stay(registry: Registry) -> None:
    random = np.random.default_rng(0).random((3, CHUNK))
    data = [save({"own": own, "shared": np.ones(CHUNK)}) for own in random]
    for each in data:
        registry.put_profile(each, made_up_summary())
    before = stored(registry)
    registry.forget_profiles(keep=1)
    assert registry.profile(3).data == data[2]
    assert stored(registry) < before / 2
