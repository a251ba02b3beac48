"""A registry with a month of decisions and outcomes in it, written by the product's own functions."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
from made_up_summary import made_up_summary
from numpy.typing import NDArray
from routing.ours import OurRouter
from routing.seen import see
from routing.table import SMOLLM2
from routing.trials import design_table, fold_list
from sqlalchemy import update
from traitroute.adapters import Adapter, AdapterState, Feedback, Registry
from traitroute.adapters.registry import schema
from traitroute.router import Router, RoutingDecision
from traitroute.serving.canaries import Entry
from traitroute.serving.profile_snapshot import DecisionToken, ProfileSnapshot

from .worlds import DAY_S, DAYS, times

ALIKE, AT_ONCE = 0.7, 1000
SHARE, TRIAL = 0.1, 12


def fill(path: Path, conversations: int, holdback: float) -> str:
    """Make a registry with the profile of the routing benchmark, and a month of traffic up to now; say what it has.

    Requests are rows that the profile was not fitted on; it routes them, and their rewards are whether the answer that
    was measured is right. The adapter chosen most often answers worse from the middle of the month on: half of its
    right answers go wrong. The one chosen next to it is a canary: in the last `TRIAL` days it gets `SHARE` of what it
    would win, having begun with a hundredth two days before.
    """
    if path.exists():
        raise SystemExit(f"{path} is there already: give a path that is not")
    table = design_table(SMOLLM2)
    fold = fold_list(table, "new_rows")[0]
    seen, asked = see(table, table.strict.astype(np.float64), fold)
    profile = OurRouter().fit(seen).router.profile
    means = seen.task_means(seen.scores)
    summary = made_up_summary(
        table.adapters,
        seen.task_names,
        base_model="SmolLM2-135M-Instruct",
        base=means[:, 0],
        scores=means[:, 1:].T,
        weights={name: _digest(name) for name in table.adapters},
    )
    with Registry.create(path) as registry:
        for name in table.adapters:
            registry.add_adapter(_adapter(name))
        version = registry.put_profile(profile.to_bytes(), summary)
        router = Router(profile, version=version)
        snapshot = ProfileSnapshot.read(registry, router, profile=registry.profile(version))
        assert snapshot is not None
        decisions = [router.route(marks) for marks in asked.marks]
        strict = table.strict[fold.test].astype(np.float64)
        right = {name: strict[:, i] for i, name in enumerate([None, *table.adapters])}
        names = [d.adapter for d in decisions if d.adapter]
        weak, canary = sorted(set(names), key=names.count)[:-3:-1]
        others = set(table.adapters) - {canary}
        trial = {i: router.route(asked.marks[i], among=others) for i, d in enumerate(decisions) if d.adapter == canary}
        rows = list(_month(snapshot, decisions, trial, right, weak, conversations, holdback))
        _enter(registry, canary)
        for start in range(0, len(rows), AT_ONCE):
            registry.put_feedback(*rows[start : start + AT_ONCE])
    return f"{path}: {conversations} conversations with {len(rows)} outcomes, {holdback:.0%} held back"


def _month(
    snapshot: ProfileSnapshot,
    decisions: Sequence[RoutingDecision],
    trial: Mapping[int, RoutingDecision],
    right: Mapping[str | None, NDArray[np.float64]],
    weak: str,
    n: int,
    holdback: float,
) -> Iterator[Feedback]:
    """The outcomes of n conversations, where `right` says of base and each adapter which rows it answers rightly.

    `trial` are the rows that the canary would win, and what is decided where another is to answer.
    """
    rng, start = np.random.default_rng(0), time.time() - DAYS * DAY_S - 3 * 3600
    for i, begun in enumerate(times(n, rng)):
        row = int(rng.integers(len(decisions)))
        decision, entry = decisions[row], None
        if row in trial and begun > (DAYS - TRIAL) * DAY_S and decision.adapter is not None:
            entry = Entry(decision.adapter, SHARE, bool(rng.random() < SHARE))
            decision = decision if entry.given else trial[row]
        control = bool(rng.random() < holdback)
        adapter = None if control else decision.adapter
        token = snapshot.token(
            decision,
            adapter,
            0.0 if control else decision.gain,
            arm="control" if control else "canary" if entry and entry.given else "auto",
            propensity=1.0 if decision.adapter is None else holdback if control else 1 - holdback,
            conversation=f"{i:011d}",
            entry=entry,
        )
        assert token is not None
        score = float(right[adapter][row])
        if adapter == weak and begun > DAYS * DAY_S / 2 and rng.random() < 0.5:
            score = 0.0
        for turn in range(int(rng.geometric(0.6))):
            made = start + begun + 60 * turn
            reward = score if turn == 0 or rng.random() < ALIKE else 1 - score
            decided = DecisionToken.read(token)
            signed = replace(decided, made=int(made), id=f"{i}-{turn}").sign(snapshot.key)
            yield Feedback(
                token=signed,
                adapter=adapter,
                predicted_gain=decided.gain,
                profile_version=snapshot.version,
                reward=float(reward),
                created_at=datetime.fromtimestamp(int(made), UTC),
                rewarded_at=datetime.fromtimestamp(made + rng.exponential(1200.0), UTC),
            )


def _enter(registry: Registry, canary: str) -> None:
    """The canary's steps, as if they had been taken then."""
    now = datetime.now(UTC)
    entered, promoted = now - timedelta(days=TRIAL + 2), now - timedelta(days=TRIAL)
    registry.set_canary(canary, 0.01, why="entered")
    figures = {"estimate": {"gain": 0.13, "low": -0.41, "high": 0.62}, "conversations": 460}
    registry.set_canary(canary, SHARE, why="promoted", figures=figures)
    with registry._writing() as connection:
        for why, at in (("entered", entered), ("promoted", promoted)):
            steps = schema.canary_steps
            connection.execute(update(steps).where(steps.c.why == why).values(made_at=at))


def _adapter(name: str) -> Adapter:
    return Adapter(
        name=name,
        base_model="SmolLM2-135M-Instruct",
        base_digest="0" * 64,
        weights_digest=_digest(name),
        rank=8,
        target_modules=("q_proj",),
        state=AdapterState.READY,
    )


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()
