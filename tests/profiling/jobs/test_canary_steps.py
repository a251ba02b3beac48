"""A worker takes the steps that canaries' figures ask for, and says so."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
from traitroute.adapters import Adapter, AdapterState, Feedback, Registry
from traitroute.profiling.jobs.worker import RARELY_S, Worker
from traitroute.serving.profile_snapshot import DecisionToken


def harmed(registry: Registry, count: int = 3000) -> None:
    """Outcomes of the last day in which `chef` is right in a fifth, and base in three fifths."""
    rng, begun = np.random.default_rng(0), datetime.now(UTC) - timedelta(days=1)
    rows = []
    for i in range(count):
        given = bool(rng.random() < 0.1)
        adapter, made = "chef" if given else None, begun + timedelta(seconds=20 * i)
        drawn = {"policy": adapter, "arm": "canary" if given else "auto", "canary": "chef", "share": 0.1}
        token = DecisionToken(
            adapter, 0.1, 0.5, 1, made=int(made.timestamp()), given=given, conversation=f"{i}", **drawn
        )
        told = {"adapter": adapter, "predicted_gain": 0.1, "created_at": made, "rewarded_at": made}
        rows.append(Feedback(token=token.sign(b"key"), reward=float(rng.random() < (0.2 if given else 0.6)), **told))
    registry.put_feedback(*rows)


def test_one_that_surely_harms_is_rolled_back_at_the_first_look_and_looks_are_rare(tmp_path: Path) -> None:
    said: list[str] = []
    with Registry.create(tmp_path / "registry.db") as registry:
        registry.add_adapter(
            Adapter(
                name="chef",
                base_model="tiny",
                base_digest="0" * 64,
                weights_digest="1" * 64,
                rank=4,
                target_modules=("q_proj",),
                state=AdapterState.READY,
                created_at=datetime.now(UTC) - timedelta(days=2),
                canary=0.1,
            )
        )
        worker = Worker(registry, cast("Any", None), cast("Any", None), say=said.append)
        worker._look_rarely()
        assert said == []
        harmed(registry)
        worker._look_rarely()
        assert said == []
        worker._rarely_at -= RARELY_S
        worker._look_rarely()
        assert registry.adapter("chef").canary == 0
    assert said == ["chef, a canary at 10.0%, is rolled back: traitroute adapters canary"]
