"""The registry as a state machine, against a model of plain dictionaries, on both databases."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from made_up_summary import made_up_summary
from sqlalchemy import create_engine, delete
from traitroute.adapters import (
    Adapter,
    AdapterState,
    ConflictError,
    Feedback,
    Registry,
    RegistryError,
)
from traitroute.adapters.registry.schema import meta, metadata

NAMES = strategies.sampled_from(["a", "b", "c"])
DIGESTS = strategies.sampled_from([f"{i}" * 64 for i in range(4)])
TAGS = strategies.lists(strategies.sampled_from(["x", "y", "z"]), max_size=3)
STATES = strategies.sampled_from(list(AdapterState))
TOKENS = strategies.sampled_from(["t1", "t2", "t3"])
REWARDS = strategies.floats(0, 1)


@dataclass
class Model:
    """What the registry should hold."""

    adapters: dict[str, Adapter] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    waiting: dict[str, Adapter] = field(default_factory=dict)
    profiles: list[tuple[bytes, str, int | None]] = field(default_factory=list)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    revisions: int = 0

    @property
    def newest(self) -> int | None:
        return len(self.profiles) or None


def adapter(name: str, digest: str) -> Adapter:
    fields = {"name": name, "base_model": "tiny", "base_digest": "f" * 64, "rank": 4}
    return Adapter.model_validate(fields | {"weights_digest": digest, "target_modules": ("q",), "licence": "mit"})


class RegistryMachine(RuleBasedStateMachine):
    """Every rule does one thing to the registry and to the model, through one of two connections."""

    place: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.connections = [Registry.create(self.place), Registry.open(self.place)]
        self.start = self.connections[0].revision()
        self.model = Model()
        self.turn = 0

    def teardown(self) -> None:
        for connection in self.connections:
            connection.close()

    @property
    def registry(self) -> Registry:
        """The two connections take turns, so that what one writes the other must read."""
        self.turn += 1
        return self.connections[self.turn % 2]

    def wrote(self) -> None:
        self.model.revisions += 1

    def refuses(self, change: Any, error: type[RegistryError] = RegistryError) -> None:
        with pytest.raises(error):
            change()

    @rule(name=NAMES, digest=DIGESTS)
    def add(self, name: str, digest: str) -> None:
        new = adapter(name, digest)
        if name in self.model.adapters:
            self.refuses(lambda: self.registry.add_adapter(new))
            return
        self.registry.add_adapter(new)
        self.model.adapters[name] = new
        self.wrote()

    @rule(name=NAMES, digest=DIGESTS)
    def replace(self, name: str, digest: str) -> None:
        new, old = adapter(name, digest), self.model.adapters.get(name)
        if old is None or name in self.model.waiting or old.weights_digest == digest:
            self.refuses(lambda: self.registry.replace_adapter(new))
            return
        kept = self.registry.replace_adapter(new)
        assert kept.version == old.version + 1
        self.model.waiting[name] = kept
        self.wrote()

    @rule(name=NAMES)
    def withdraw(self, name: str) -> None:
        if name not in self.model.waiting:
            self.refuses(lambda: self.registry.withdraw_replacement(name))
            return
        assert self.registry.withdraw_replacement(name) == self.model.waiting.pop(name)
        self.wrote()

    @precondition(lambda self: self.model.adapters)
    @rule(data=strategies.data(), stale=strategies.booleans())
    def admit(self, data: strategies.DataObject, stale: bool) -> None:
        name = data.draw(strategies.sampled_from(sorted(self.model.adapters)))
        current, waiting = self.model.adapters[name], self.model.waiting.get(name)
        measured = data.draw(strategies.sampled_from([a for a in (current, waiting) if a]))
        newest, content = self.model.newest, bytes([self.model.revisions % 256])
        if stale:
            change = lambda: self.registry.admit(measured, content, made_up_summary(), parent=(newest or 0) + 1)  # noqa: E731
            self.refuses(change, ConflictError)
            return
        assert self.registry.admit(measured, content, made_up_summary(), parent=newest) == (newest or 0) + 1
        self.model.profiles.append((content, "row", newest))
        disabled = current.state is AdapterState.DISABLED
        state = {"state": current.state if disabled else AdapterState.READY}
        swapped = measured is waiting
        new = waiting if swapped and waiting else current
        note = {"note": current.note if disabled else None}
        self.model.adapters[name] = new.model_copy(update=state | note | {"tags": current.tags})
        self.model.measured.add(name)
        if swapped:
            del self.model.waiting[name]
        self.wrote()

    @rule(name=NAMES, digest=DIGESTS)
    def admit_what_is_gone(self, name: str, digest: str) -> None:
        known = [m.get(name) for m in (self.model.adapters, self.model.waiting)]
        if digest not in {each.weights_digest for each in known if each}:
            gone = adapter(name, digest)
            self.refuses(lambda: self.registry.admit(gone, b"", made_up_summary(), parent=self.model.newest))

    @rule(name=NAMES, state=STATES, note=strategies.none() | strategies.just("why"))
    def set_state(self, name: str, state: AdapterState, note: str | None) -> None:
        if name not in self.model.adapters:
            self.refuses(lambda: self.registry.set_state(name, state))
            return
        self.registry.set_state(name, state, note=note)
        self.change(name, state=state, note=note)
        if state is AdapterState.READY:
            self.model.measured.add(name)

    @rule(name=NAMES)
    def enable(self, name: str) -> None:
        found = self.model.adapters.get(name)
        if found is None:
            self.refuses(lambda: self.registry.enable(name))
            return
        self.registry.enable(name)
        if found.state is AdapterState.DISABLED:
            ready = name in self.model.measured
            state = AdapterState.READY if ready else AdapterState.PENDING
            self.change(name, state=state, note=None)
        else:
            # Nothing was to be done, but whoever looks again loses little.
            self.wrote()

    @rule(name=NAMES, tags=TAGS, stale=strategies.booleans())
    def set_tags(self, name: str, tags: list[str], stale: bool) -> None:
        found = self.model.adapters.get(name)
        if found is None:
            self.refuses(lambda: self.registry.set_tags(name, tags))
            return
        expected = found.model_copy(update={"rank": 9}) if stale else found
        if stale:
            change = lambda: self.registry.set_tags(name, tags, expected=expected)  # noqa: E731
            self.refuses(change, ConflictError)
            return
        self.registry.set_tags(name, tags, expected=expected)
        self.change(name, tags=tuple(dict.fromkeys(tags)))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name not in self.model.adapters:
            self.refuses(lambda: self.registry.remove_adapter(name))
            return
        assert self.registry.remove_adapter(name) == self.model.adapters.pop(name)
        self.model.waiting.pop(name, None)
        self.model.measured.discard(name)
        self.wrote()

    @rule(content=strategies.binary(max_size=3))
    def fit(self, content: bytes) -> None:
        self.registry.put_profile(content, made_up_summary(tasks=["imdb"]))
        self.model.profiles.append((content, "fit", None))
        self.wrote()

    @precondition(lambda self: self.model.profiles)
    @rule(data=strategies.data())
    def roll_back(self, data: strategies.DataObject) -> None:
        version = data.draw(strategies.integers(1, len(self.model.profiles)))
        old = self.registry.profile(version)
        self.registry.put_profile(old.data, old.summary, origin="rollback", parent=version)
        self.model.profiles.append((old.data, "rollback", version))
        self.wrote()

    @rule(token=TOKENS, gain=strategies.floats(-1, 1), name=NAMES | strategies.none())
    def decide(self, token: str, gain: float, name: str | None) -> None:
        given = Feedback(token=token, adapter=name, predicted_gain=gain)
        if token in self.model.feedback:
            self.refuses(lambda: self.registry.put_feedback(given), ConflictError)
            return
        self.registry.put_feedback(given)
        self.model.feedback[token] = given

    @rule(token=TOKENS, reward=REWARDS)
    def reward(self, token: str, reward: float) -> None:
        known = self.model.feedback.get(token)
        if known is None or known.reward is not None:
            self.refuses(lambda: self.registry.reward_feedback(token, reward))
            return
        self.model.feedback[token] = self.registry.reward_feedback(token, reward)
        assert self.model.feedback[token].reward == reward

    def change(self, name: str, **values: Any) -> None:
        self.model.adapters[name] = self.model.adapters[name].model_copy(update=values)
        self.wrote()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        registry, model = self.registry, self.model
        by_name = lambda held: [held[name] for name in sorted(held)]  # noqa: E731
        assert registry.adapters() == by_name(model.adapters)
        assert registry.replacements() == by_name(model.waiting)
        history = [(p.origin, p.parent) for p in registry.profile_history()]
        assert history == [(origin, parent) for _, origin, parent in model.profiles]
        latest = registry.latest_profile()
        assert (latest and latest.data) == (model.profiles[-1][0] if model.profiles else None)
        rewarded = {f.token: f for f in model.feedback.values() if f.reward is not None}
        assert {f.token: f for f in registry.feedback()} == rewarded
        assert registry.revision() - self.start == model.revisions
        # Whatever is routable was measured with the weights that it has.
        assert {a.name for a in registry.adapters(AdapterState.READY)} <= model.measured


def empty(place: str) -> None:
    """Forget everything but the revision, so that one database does for all sequences."""
    engine = create_engine(place if "://" in place else f"sqlite:///{place}")
    with engine.begin() as connection:
        for table in set(metadata.tables.values()) - {meta}:
            connection.execute(delete(table))
    engine.dispose()


@pytest.mark.slow
def test_any_sequence_of_changes_leaves_what_it_says(place: str) -> None:
    class Machine(RegistryMachine):
        def __init__(self) -> None:
            self.place = place
            super().__init__()

        def teardown(self) -> None:
            super().teardown()
            empty(place)

    run_state_machine_as_test(Machine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
