"""An adapter gets a share of the traffic it would win, and every step of that is kept."""

import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, AdapterState, ConflictError, Registry, RegistryError
from traitroute.adapters.registry.canaries import MOST


def adapter(name: str = "math", digest: str = "1" * 64, **changes: object) -> Adapter:
    fields = {"base_model": "tiny", "base_digest": "f" * 64, "weights_digest": digest, "rank": 4}
    return Adapter.model_validate({"name": name, "target_modules": ("q",)} | fields | changes)


def test_a_share_is_set_and_the_steps_are_kept_with_their_figures(registry: Registry) -> None:
    registry.add_adapter(adapter(state=AdapterState.READY))
    assert registry.routable_names() == {"math"}
    before = registry.revision()
    registry.set_canary("math", 0.01, why="entered")
    assert registry.revision() == before + 1
    assert registry.adapter("math").canary == 0.01
    assert registry.routable_names() == frozenset()
    registry.set_canary("math", 1, why="promoted", figures={"gain": 0.1})
    assert registry.adapter("math").canary is None
    steps = registry.canary_steps("math")
    assert [(step.share, step.why, step.figures) for step in steps] == [
        (0.01, "entered", None),
        (1, "promoted", {"gain": 0.1}),
    ]
    assert {step.weights_digest for step in steps} == {"1" * 64}


def test_a_share_set_before_measuring_holds_from_the_moment_it_is_ready(registry: Registry) -> None:
    registry.add_adapter(adapter())
    registry.set_canary("math", 0.1, why="entered")
    assert registry.canaries() == []
    registry.admit(registry.adapter("math"), b"1", made_up_summary(), parent=None)
    assert [(each.name, each.canary, each.state) for each in registry.canaries()] == [("math", 0.1, "ready")]


def test_one_that_is_taken_back_is_ready_and_no_canary(registry: Registry) -> None:
    registry.add_adapter(adapter(state=AdapterState.READY))
    registry.set_canary("math", 0)
    assert registry.adapter("math").state is AdapterState.READY
    assert registry.routable_names() == frozenset()
    assert registry.canaries() == []


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(registry: Registry, share: float) -> None:
    registry.add_adapter(adapter())
    with pytest.raises(RegistryError, match="no share of the traffic"):
        registry.set_canary("math", share)
    assert registry.canary_steps("math") == []


def test_so_many_may_be_in_a_canary_and_no_more(registry: Registry) -> None:
    for i in range(MOST + 1):
        registry.add_adapter(adapter(f"a{i}", f"{i}" * 64))
    for i in range(MOST):
        registry.set_canary(f"a{i}", 0.1)
    with pytest.raises(RegistryError, match="promote one or take it back first"):
        registry.set_canary(f"a{MOST}", 0.1)
    registry.set_canary("a0", 0.2)
    registry.set_canary("a0", 0)
    registry.set_canary(f"a{MOST}", 0.1)


def test_of_two_that_take_the_same_step_one_is_refused(registry: Registry) -> None:
    registry.add_adapter(adapter())
    read = registry.adapter("math")
    registry.set_canary("math", 0.1, expected=read)
    with pytest.raises(ConflictError):
        registry.set_canary("math", 0.1, expected=read)
    assert len(registry.canary_steps("math")) == 1


def test_once_it_gets_all_the_one_it_replaces_gets_nothing_more(registry: Registry) -> None:
    for name, digest in (("old", "1" * 64), ("new", "2" * 64)):
        registry.add_adapter(adapter(name, digest, state=AdapterState.READY))
    registry.set_canary("new", 0.1, replaces="old", why="entered")
    assert registry.routable_names() == {"old"}
    registry.set_canary("new", 1, why="promoted")
    assert registry.routable_names() == {"new"}
    assert (registry.adapter("old").canary, registry.adapter("new").replaces) == (0, "old")
    assert [(step.why, step.figures) for step in registry.canary_steps("old")] == [("replaced", {"by": "new"})]
    registry.set_canary("old", 1)
    assert registry.routable_names() == {"old", "new"}


def test_it_takes_no_place_before_it_is_measured_nor_that_of_itself_or_of_a_canary(registry: Registry) -> None:
    for name, digest in (("old", "1" * 64), ("new", "2" * 64), ("trial", "3" * 64)):
        registry.add_adapter(adapter(name, digest, state=AdapterState.READY if name == "old" else AdapterState.PENDING))
    registry.set_canary("trial", 0.1)
    with pytest.raises(RegistryError, match="once it is measured"):
        registry.set_canary("new", 1, replaces="old")
    with pytest.raises(RegistryError, match="cannot replace new"):
        registry.set_canary("new", 0.1, replaces="new")
    with pytest.raises(RegistryError, match="cannot replace trial, which gets a share"):
        registry.set_canary("new", 0.1, replaces="trial")
    assert registry.adapter("new").replaces is None
    assert registry.routable_names() == {"old"}
