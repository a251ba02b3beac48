"""Adapters are added, replaced and admitted without anybody seeing half of it."""

import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, AdapterState, ConflictError, Registry, RegistryError

OLD, NEW = "1" * 64, "2" * 64


def adapter(name: str = "math", digest: str = OLD, **changes: object) -> Adapter:
    fields = {"base_model": "tiny", "base_digest": "f" * 64, "weights_digest": digest, "rank": 4}
    return Adapter.model_validate({"name": name, "target_modules": ("q",)} | fields | changes)


@pytest.fixture
def served(registry: Registry) -> Registry:
    """A registry whose adapter `math` is ready, in profile version 1."""
    registry.add_adapter(adapter(tags=("sums",)))
    registry.admit(registry.adapter("math"), b"1", made_up_summary(), parent=None)
    return registry


def test_an_admitted_adapter_is_ready_and_in_a_profile(registry: Registry) -> None:
    registry.put_profile(b"0", made_up_summary())
    registry.add_adapter(adapter(uri="hub://team/math", licence="mit"))
    before = registry.revision()
    assert registry.admit(registry.adapter("math"), b"1", made_up_summary(), parent=1) == 2
    assert registry.adapter("math").state is AdapterState.READY
    assert registry.adapter("math").uri == "hub://team/math"
    assert [(p.version, p.origin, p.parent) for p in registry.profile_history()] == [
        (1, "fit", None),
        (2, "row", 1),
    ]
    assert registry.revision() == before + 1


def test_the_old_weights_are_served_until_the_new_are_admitted(served: Registry) -> None:
    served.replace_adapter(adapter(digest=NEW, rank=8))
    assert served.adapter("math").weights_digest == OLD
    assert {a.name: a.weights_digest for a in served.servable()} == {"math": OLD, "math@2": NEW}
    waiting = served.replacement("math")
    assert waiting is not None
    served.admit(waiting, b"2", made_up_summary(), parent=1)
    swapped = served.adapter("math")
    assert (swapped.weights_digest, swapped.rank, swapped.version) == (NEW, 8, 2)
    assert swapped.state is AdapterState.READY
    assert served.replacements() == []
    assert [a.name for a in served.servable()] == ["math"]


def test_an_effect_belongs_to_the_weights_that_were_measured(served: Registry) -> None:
    old, waiting = served.adapter("math"), served.replace_adapter(adapter(digest=NEW))
    served.set_effect(waiting, 7.0, 0.1)
    assert served.adapter("math").effect is None
    served.admit(waiting, b"2", made_up_summary(), parent=1)
    served.set_effect(old, 1.0, 0.1)
    swapped = served.adapter("math")
    assert (swapped.weights_digest, swapped.effect, swapped.noise) == (NEW, 7.0, 0.1)


def test_what_is_changed_while_a_replacement_waits_is_kept(served: Registry) -> None:
    waiting = served.replace_adapter(adapter(digest=NEW))
    served.set_tags("math", ["algebra"])
    served.set_state("math", AdapterState.DISABLED, note="complaints")
    served.admit(waiting, b"2", made_up_summary(), parent=1)
    found = served.adapter("math")
    assert (found.weights_digest, found.tags) == (NEW, ("algebra",))
    assert (found.state, found.note) == (AdapterState.DISABLED, "complaints")
    assert served.enable("math").state is AdapterState.READY


def test_a_profile_made_from_an_older_version_admits_nothing(served: Registry) -> None:
    waiting = served.replace_adapter(adapter(digest=NEW))
    served.put_profile(b"somebody else's", made_up_summary(), parent=1)
    with pytest.raises(ConflictError, match="from version 1, but the newest is 2: make it again"):
        served.admit(waiting, b"2", made_up_summary(), parent=1)
    assert served.adapter("math").weights_digest == OLD
    assert served.replacement("math") == waiting
    assert served.profile_versions() == [1, 2]


def test_a_measurement_of_weights_that_are_gone_admits_nothing(served: Registry) -> None:
    waiting = served.replace_adapter(adapter(digest=NEW))
    served.withdraw_replacement("math")
    with pytest.raises(ConflictError, match="neither those of 'math' nor waiting"):
        served.admit(waiting, b"2", made_up_summary(), parent=1)
    assert served.profile_versions() == [1]


def test_one_replacement_waits_at_a_time(served: Registry) -> None:
    served.replace_adapter(adapter(digest=NEW))
    with pytest.raises(ConflictError, match=r"a replacement of 'math' was changed at .* by \S+"):
        served.replace_adapter(adapter(digest="3" * 64))
    served.withdraw_replacement("math", note="wrong shapes")
    assert served.adapter("math").note == "wrong shapes"
    served.replace_adapter(adapter(digest="3" * 64))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (adapter("cook", NEW), "no adapter named 'cook'"),
        (adapter(), "has these weights already"),
        (adapter(digest=NEW, base_digest="e" * 64), "add it under another name"),
    ],
)
def test_what_replaces_nothing_is_refused(served: Registry, new: Adapter, message: str) -> None:
    before = served.revision()
    with pytest.raises(RegistryError, match=message):
        served.replace_adapter(new)
    assert (served.replacements(), served.revision()) == ([], before)


def test_a_removed_adapter_is_gone_with_its_replacement(served: Registry) -> None:
    served.replace_adapter(adapter(digest=NEW))
    assert served.remove_adapter("math").name == "math"
    assert (served.adapters(), served.replacements(), served.servable()) == ([], [], [])
    with pytest.raises(RegistryError, match="no adapter named 'math'"):
        served.remove_adapter("math")


def test_an_adapter_never_measured_is_enabled_as_pending(registry: Registry) -> None:
    registry.add_adapter(adapter())
    registry.set_state("math", AdapterState.DISABLED)
    assert registry.enable("math").state is AdapterState.PENDING


def test_a_change_made_on_a_stale_reading_is_refused(served: Registry) -> None:
    read = served.adapter("math")
    with Registry.open(served.location, author="alice") as other:
        other.set_tags("math", ["hers"])
    message = r"'math' was changed at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by alice: read it again"
    for change in (
        lambda: served.set_tags("math", ["his"], expected=read),
        lambda: served.set_state("math", AdapterState.DISABLED, expected=read),
        lambda: served.enable("math", expected=read),
        lambda: served.replace_adapter(adapter(digest=NEW), expected=read),
        lambda: served.remove_adapter("math", expected=read),
    ):
        with pytest.raises(ConflictError, match=message):
            change()
    assert served.adapter("math") == read.model_copy(update={"tags": ("hers",)})


def test_a_rollback_is_a_new_version_whatever_came_between(served: Registry) -> None:
    served.put_profile(b"2", made_up_summary(), parent=1)
    first = served.profile(1)
    served.put_profile(first.data, first.summary, origin="rollback", parent=1)
    latest = served.latest_profile()
    assert latest is not None
    assert (latest.version, latest.data, latest.origin, latest.parent) == (3, b"1", "rollback", 1)


def test_a_fitted_profile_makes_its_adapters_ready_at_once(registry: Registry) -> None:
    registry.add_adapter(adapter())
    before = registry.revision()
    registry.put_profile(b"1", made_up_summary(), ready=["math"])
    assert registry.adapter("math").state is AdapterState.READY
    assert registry.revision() == before + 1


def test_what_vllm_cannot_run_stays_pending(registry: Registry) -> None:
    registry.add_adapter(adapter(method="dora"))
    registry.admit(registry.adapter("math"), b"1", made_up_summary(), parent=None)
    assert registry.adapter("math").state is AdapterState.PENDING
