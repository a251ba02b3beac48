"""What the registry keeps, refuses and counts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from made_up_summary import made_up_summary, made_up_traits
from traitroute.adapters import Adapter, AdapterState, Cell, Outcomes, Registry, RegistryError

from ...made_up_outcomes import made_up_outcomes


def adapter(name: str, *, digest: str = "0" * 64, **changes: object) -> Adapter:
    fields = {"base_model": "tiny", "base_digest": "f" * 64, "weights_digest": digest, "rank": 4}
    modules = ("q_proj", "v_proj")
    return Adapter.model_validate({"name": name, "target_modules": modules} | fields | changes)


def cell(key: str, *, adapter: str | None = None, task: str = "imdb", right: int = 1) -> Cell:
    strict = np.arange(4) < right
    outcomes = made_up_outcomes(
        strict,
        lenient=strict | (np.arange(4) == 3),
        parse_failure=~strict,
        log_likelihood=np.linspace(-9.5, -0.5, 4),
        target_tokens=np.arange(1, 5),
        output_tokens=np.arange(5, 9),
        finish_reason=[0, 1, 0, 1],
        predicted_label=[-1, 0, 1, 1],
        output_digest=np.arange(4, dtype=np.uint64) + np.uint64(2**63),
        label_probabilities=np.full((4, 2), 0.5, np.float32),
    )
    return Cell(key, adapter, task, outcomes)


def test_an_adapter_comes_back_as_it_was(registry: Registry) -> None:
    given = adapter("math", source_task="gsm8k", state=AdapterState.READY, tags=("sums", "de"))
    registry.add_adapter(given)
    assert registry.adapter("math") == given


def test_adapters_are_listed_by_name_and_state(registry: Registry) -> None:
    for name in ("b", "c", "a"):
        registry.add_adapter(adapter(name))
    registry.set_state("c", AdapterState.READY)
    assert [each.name for each in registry.adapters()] == ["a", "b", "c"]
    assert [each.name for each in registry.adapters(AdapterState.PENDING)] == ["a", "b"]


def test_set_state_returns_the_changed_adapter(registry: Registry) -> None:
    registry.add_adapter(adapter("math"))
    changed = registry.set_state("math", AdapterState.DISABLED)
    assert changed.state is AdapterState.DISABLED
    assert registry.adapter("math") == changed


def test_tags_are_replaced_and_count_as_a_write(registry: Registry) -> None:
    registry.add_adapter(adapter("math", tags=("old",)))
    before = registry.revision()
    changed = registry.set_tags("math", ["sums", "de", "sums"])
    assert changed.tags == registry.adapter("math").tags == ("sums", "de")
    assert registry.revision() > before


def test_a_tag_that_could_not_be_a_name_is_refused(registry: Registry) -> None:
    registry.add_adapter(adapter("math"))
    with pytest.raises(RegistryError, match="a tag of 'math': 'a, b' cannot be a name"):
        registry.set_tags("math", ["a, b"])


def test_a_name_is_taken_until_replaced(registry: Registry) -> None:
    registry.add_adapter(adapter("math"))
    with pytest.raises(RegistryError, match=r"'math' is there already.*replace"):
        registry.add_adapter(adapter("math", rank=8))
    registry.add_adapter(adapter("math", rank=8), replace=True)
    assert [each.rank for each in registry.adapters()] == [8]


def test_two_names_may_share_weights(registry: Registry) -> None:
    registry.add_adapter(adapter("one"))
    registry.add_adapter(adapter("two"))
    assert registry.adapter("one").serving_id == registry.adapter("two").serving_id


@pytest.mark.parametrize("name", ["other", "math"])
def test_different_weights_with_one_serving_id_are_refused(registry: Registry, name: str) -> None:
    registry.add_adapter(adapter("math", digest="a" * 64))
    with pytest.raises(RegistryError, match=r"collision.*'math'"):
        registry.add_adapter(adapter(name, digest="a" * 63 + "b"), replace=True)
    assert [each.weights_digest for each in registry.adapters()] == ["a" * 64]


def test_an_unknown_adapter_is_answered_with_similar_names(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="holds none yet"):
        registry.adapter("math")
    for i in range(25):
        registry.add_adapter(adapter(f"task-{i:02}"))
    with pytest.raises(RegistryError, match=r"did you mean 'task-07'\? Known: .* and 5 more"):
        registry.set_state("tusk-07", AdapterState.READY)


def test_a_task_is_replaced_by_name(registry: Registry) -> None:
    registry.put_task("imdb", "1" * 64, {"metric": "accuracy"})
    registry.put_task("imdb", "2" * 64, {"metric": "exact", "labels": ["no", "yes"]})
    assert registry.tasks() == {"imdb": {"metric": "exact", "labels": ["no", "yes"]}}
    assert registry.task_digests() == {"imdb": "2" * 64}


def test_a_cell_comes_back_with_every_outcome(registry: Registry) -> None:
    given = cell("k", adapter="math", right=3)
    registry.put_cell(given)
    found = registry.find_cell("k")
    assert found is not None
    assert (found.key, found.adapter, found.task) == ("k", "math", "imdb")
    for field in fields(Outcomes):
        expected = getattr(given.outcomes, field.name)
        np.testing.assert_array_equal(getattr(found.outcomes, field.name), expected)
    assert registry.find_cell("other") is None


def test_a_cell_is_replaced_by_key(registry: Registry) -> None:
    registry.put_cell(cell("k", right=1))
    registry.put_cell(cell("k", right=4))
    assert [each.outcomes.strict.mean() for each in registry.cells()] == [1.0]
    assert registry.cell_keys() == {"k": None}


def test_of_cells_that_were_measured_at_a_time_the_first_counts(registry: Registry) -> None:
    assert registry.add_cell(cell("k", right=1)).outcomes.strict.sum() == 1
    assert registry.add_cell(cell("k", right=4)).outcomes.strict.sum() == 1
    assert [c.outcomes.strict.sum() for c in registry.cells()] == [1]


def test_cells_are_listed_with_the_base_model_first(registry: Registry) -> None:
    registry.put_cell(cell("1", adapter="math", task="a"))
    registry.put_cell(cell("2", task="b"))
    registry.put_cell(cell("3", task="a"))
    assert [each.key for each in registry.cells()] == ["3", "2", "1"]
    assert registry.cell_keys() == {"3": None, "2": None, "1": "math"}


def test_cells_can_be_chosen_by_any_number_of_keys(registry: Registry) -> None:
    for key in ("k3", "k700", "k1999", "other"):
        registry.put_cell(cell(key))
    chosen = registry.cells(keys=[f"k{i}" for i in range(2000)])
    assert {each.key for each in chosen} == {"k3", "k700", "k1999"}
    assert registry.cells(keys=[]) == []


def test_profiles_are_kept_as_versions(registry: Registry) -> None:
    assert registry.latest_profile() is None
    versions = [registry.put_profile(data, made_up_summary(suite=data.decode())) for data in (b"a", b"bb")]
    assert registry.profile_versions() == versions == [1, 2]
    latest = registry.latest_profile()
    assert latest == registry.profile(2)
    assert latest is not None
    assert (latest.data, latest.summary.suite) == (b"bb", "bb")
    assert timedelta(0) <= datetime.now(UTC) - latest.created_at < timedelta(minutes=1)
    assert registry.profile(1).data == b"a"


def test_old_profiles_can_be_forgotten_and_their_numbers_are_not_used_again(
    registry: Registry,
) -> None:
    for i in range(4):
        registry.put_profile(bytes([i]), made_up_summary())
    assert registry.forget_profiles(keep=2) == [1, 2]
    assert registry.forget_profiles(keep=2) == []
    assert registry.profile_versions() == [3, 4]
    assert registry.put_profile(b"", made_up_summary()) == 5
    with pytest.raises(RegistryError, match="at least 1"):
        registry.forget_profiles(keep=0)


def test_an_unknown_profile_version_is_answered_with_the_known_ones(registry: Registry) -> None:
    registry.put_profile(b"", made_up_summary())
    with pytest.raises(RegistryError, match="no profile version 3; versions: 1"):
        registry.profile(3)


def test_the_revision_follows_adapters_and_profiles_only(registry: Registry) -> None:
    revisions = [registry.revision()]
    for write in (
        lambda: registry.add_adapter(adapter("math")),
        lambda: registry.set_state("math", AdapterState.READY),
        lambda: registry.add_adapter(adapter("math"), replace=True),
        lambda: registry.put_profile(b"", made_up_summary()),
    ):
        write()
        revisions.append(registry.revision())
    assert len(set(revisions)) == len(revisions)
    registry.put_cell(cell("k"))
    registry.put_task("imdb", "1" * 64, {})
    assert registry.revision() == revisions[-1]


def test_a_refused_write_leaves_the_revision_alone(registry: Registry) -> None:
    registry.add_adapter(adapter("math"))
    before = registry.revision()
    with pytest.raises(RegistryError):
        registry.add_adapter(adapter("math"))
    assert registry.revision() == before


def test_concurrent_writes_from_two_connections_lose_nothing(registry: Registry) -> None:
    start = registry.revision()
    with Registry.open(registry.location) as other, ThreadPoolExecutor(4) as pool:

        def write(i: int) -> None:
            each = (registry, other)[i % 2]
            each.add_adapter(adapter(f"a{i}"))
            each.put_cell(cell(f"k{i}"))
            each.put_profile(b"", made_up_summary())

        list(pool.map(write, range(24)))
    assert {each.name for each in registry.adapters()} == {f"a{i}" for i in range(24)}
    assert len(registry.cells()) == 24
    assert registry.profile_versions() == list(range(1, 25))
    assert registry.revision() == start + 48


def test_a_trait_s_label_is_kept_with_its_profile_version(registry: Registry) -> None:
    for _ in range(2):
        registry.put_profile(b"", made_up_summary(tasks=["t", "u"], traits=made_up_traits(np.eye(2))))
    registry.set_trait_label(1, 2, "  stops early ")
    registry.set_trait_label(1, 1, "räumt auf")
    assert registry.profile(1).summary.traits.labels == {2: "stops early", 1: "räumt auf"}
    assert registry.profile(2).summary.traits.labels == {}


def test_a_label_is_replaced_and_removed(registry: Registry) -> None:
    registry.put_profile(b"", made_up_summary(tasks=["t"]))
    for label, kept in (("one", {1: "one"}), ("x" * 80, {1: "x" * 80}), ("", {}), ("", {})):
        registry.set_trait_label(1, 1, label)
        assert registry.profile(1).summary.traits.labels == kept


@pytest.mark.parametrize(
    ("version", "index", "label", "message"),
    [
        (2, 1, "x", "no profile version 2; versions: 1"),
        (1, 0, "x", "no component 0: it has 1"),
        (1, 2, "x", "no component 2: it has 1"),
        (1, 1, "x" * 81, "1 to 80 printable"),
        (1, 1, "two\nlines", "1 to 80 printable"),
    ],
)
def test_a_label_that_cannot_be_is_refused_and_changes_nothing(
    registry: Registry, version: int, index: int, label: str, message: str
) -> None:
    registry.put_profile(b"", made_up_summary(tasks=["t"]))
    before = registry.revision()
    with pytest.raises(RegistryError, match=message):
        registry.set_trait_label(version, index, label)
    assert registry.revision() == before
    assert registry.profile(1).summary == made_up_summary(tasks=["t"])


def test_a_label_counts_as_a_write(registry: Registry) -> None:
    registry.put_profile(b"", made_up_summary(tasks=["t"]))
    before = registry.revision()
    registry.set_trait_label(1, 1, "stops early")
    assert registry.revision() > before
    with (
        Registry.open(registry.location, read_only=True) as reader,
        pytest.raises(RegistryError, match="read-only"),
    ):
        reader.set_trait_label(1, 1, "other")


def test_concurrent_labels_from_two_connections_are_all_kept(registry: Registry) -> None:
    registry.put_profile(b"", made_up_summary(tasks=["t"], traits=made_up_traits(np.ones((24, 1)))))
    with Registry.open(registry.location) as other, ThreadPoolExecutor(4) as pool:
        write = lambda i: (registry, other)[i % 2].set_trait_label(1, i, f"label {i}")  # noqa: E731
        list(pool.map(write, range(1, 25)))
    assert len(registry.profile(1).summary.traits.labels) == 24


def test_only_what_vllm_runs_and_nobody_disabled_is_servable(registry: Registry) -> None:
    registry.add_adapter(adapter("plain"))
    registry.add_adapter(adapter("dora", method="dora"))
    registry.add_adapter(adapter("off", state=AdapterState.DISABLED))
    assert [each.name for each in registry.servable()] == ["plain"]
