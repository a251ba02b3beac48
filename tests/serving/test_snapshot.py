"""A snapshot is one revision of a registry, and of the next one only what changed is read."""

import threading
from typing import Any

import pytest
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.serving.http.tenants import Tenant
from traitroute.serving.snapshot import RegistrySnapshot


@pytest.fixture(params=["registry", "postgresql"])
def measured(request: pytest.FixtureRequest) -> Registry:
    """A registry of this test's own with the measured adapters, in a file and in a database."""
    return request.getfixturevalue(request.param)


def late(registry: Registry, **changes: Any) -> Adapter:
    chef = registry.adapter("chef")
    new = {"name": "late", "weights_digest": "a" * 64, "state": AdapterState.PENDING}
    return chef.model_copy(update=new | changes)


def test_an_addition_leaves_all_else_as_it_was_read(measured: Registry) -> None:
    before = RegistrySnapshot.read(measured)
    measured.add_adapter(late(measured))
    after = RegistrySnapshot.read(measured, before)
    assert set(after.adapters) - set(before.adapters) == {"late"}
    assert all(after.adapters[name] is kept for name, kept in before.adapters.items())
    assert after.router is before.router
    assert after.router is not None
    assert after.skills is not None
    assert set(after.skills.adapters) == set(after.adapters)


def test_what_was_read_before_changes_nothing_but_the_time(measured: Registry) -> None:
    before = RegistrySnapshot.read(measured)
    measured.add_adapter(late(measured))
    measured.set_tags("chef", ["spicy"])
    measured.set_state("idle", AdapterState.DISABLED)
    measured.replace_adapter(late(measured, name="pilot", weights_digest="b" * 64))
    measured.remove_adapter("late")
    whole, after = RegistrySnapshot.read(measured), RegistrySnapshot.read(measured, before)
    assert after.adapters == whole.adapters
    assert set(after.adapters) == {"chef", "pilot", "pilot@2"}
    assert after.ready == whole.ready == {"chef", "pilot"}


def test_an_adapter_called_like_the_servers_base_model_is_neither_offered_nor_chosen(
    measured: Registry,
) -> None:
    snapshot = RegistrySnapshot.read(measured, base_names=("Pilot:latest", "acme/chef", "base"))
    assert snapshot.shadowed == {"pilot"}
    assert set(snapshot.adapters) == {"chef", "idle"}
    assert snapshot.ready == {"chef", "idle"}


def test_disabled_adapters_and_measured_ones_that_were_removed_are_withheld(
    measured: Registry,
) -> None:
    before = RegistrySnapshot.read(measured)
    measured.set_state("idle", AdapterState.DISABLED)
    measured.remove_adapter("chef")
    after = RegistrySnapshot.read(measured, before)
    assert before.withheld.isdisjoint(before.adapters)
    assert {"idle", "chef"} <= after.withheld == RegistrySnapshot.read(measured).withheld
    assert after.withheld.isdisjoint(after.adapters)
    assert RegistrySnapshot.read(measured, base_names=("chef",)).withheld.isdisjoint({"chef"})


def test_who_may_be_chosen_changes_without_the_profile_being_read(measured: Registry, text_of: Any) -> None:
    before = RegistrySnapshot.read(measured)
    measured.set_state("chef", AdapterState.DISABLED)
    after = RegistrySnapshot.read(measured, before)
    old, new = before.router, after.router
    assert old is not None
    assert new is not None
    assert after.profile is before.profile
    text = text_of("cooking")
    assert (old.route(text).adapter, new.route(text).adapter) == ("chef", None)
    assert after.skills is not None
    assert after.skills.router is new


def test_a_new_label_is_read_though_the_version_stays(measured: Registry) -> None:
    before = RegistrySnapshot.read(measured)
    measured.set_trait_label(1, 1, "kitchen")
    after = RegistrySnapshot.read(measured, before)
    assert after.skills is not None
    assert after.skills.traits.labels == {1: "kitchen"}


def test_a_registry_that_went_back_is_read_anew(measured: Registry, tmp_path: Any) -> None:
    measured.set_tags("chef", ["late"])
    before = RegistrySnapshot.read(measured)
    with Registry.create(tmp_path / "restored.db") as restored:
        restored.add_adapter(measured.adapter("chef").model_copy(update={"tags": ("early",)}))
        after = RegistrySnapshot.read(restored, before)
    assert (set(after.adapters), after.tags_of("chef")) == ({"chef"}, ("early",))


def test_no_profile_is_paired_with_the_weights_of_another(measured: Registry) -> None:
    stored = measured.profile(1)
    stop = threading.Event()

    def keep_replacing() -> None:
        with Registry.open(measured.location) as writer:
            for number in range(1, 200):
                digest = f"{number:016x}" + "0" * 48
                new = writer.replace_adapter(late(writer, name="chef", weights_digest=digest))
                summary = stored.summary.changed(base_model=digest)
                writer.admit(new, stored.data, summary, parent=None)
                if stop.is_set():
                    return

    writing = threading.Thread(target=keep_replacing)
    writing.start()
    snapshot, seen = None, set()
    try:
        while len(seen) < 10 and writing.is_alive():
            snapshot = RegistrySnapshot.read(measured, snapshot)
            assert snapshot.skills is not None
            named = snapshot.skills.base_model
            if named != "tiny":
                assert named == snapshot.adapters["chef"].weights_digest
                seen.add(named)
    finally:
        stop.set()
        writing.join()
    assert len(seen) > 2


def test_who_may_use_an_adapter_may_use_the_canary_that_replaces_it(registry: Registry) -> None:
    registry.set_canary("chef", 0.5, replaces="pilot")
    snapshot = RegistrySnapshot.read(registry)
    assert set(snapshot.canaries) == {"chef"}
    assert "chef" not in snapshot.ready
    flyer = snapshot.seen_by(Tenant(name="flyer", adapters=frozenset({"pilot"})))
    assert set(flyer.known) == {"chef", "pilot"}
    assert flyer.trial_router is not None
    other = snapshot.seen_by(Tenant(name="other", adapters=frozenset({"idle"})))
    assert (set(other.known), other.trial_router) == ({"idle"}, None)
