"""The simulated fleet keeps to its own rules."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="needs numba, which vLLM brings")
from fleet.simulation import POLICIES, Arrivals, Served, simulate
from fleet.workload import arrivals, zipf

pytestmark = pytest.mark.slow
REPLICAS, SLOTS, LOAD_S = 20, 4, 0.5


def serve(policy: str, *, load: float = 0.7, **more: float | tuple[float, float]) -> tuple[Arrivals, Served]:
    asked = arrivals(zipf(100, 1.0), None, replicas=REPLICAS, seconds=60, load=load, seed=1)
    return asked, simulate(asked, policy, replicas=REPLICAS, slots=SLOTS, load_s=LOAD_S, **more)  # pyright: ignore


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_waits_for_a_seat_and_for_its_adapter(policy: str) -> None:
    asked, served = serve(policy)
    assert (served.adapter == asked.adapters[:, 0]).all()
    assert (served.wait[~served.held] >= LOAD_S - 1e-9).all()
    assert (served.wait >= -1e-9).all()
    for replica in range(REPLICAS):
        here = served.replica == replica
        # What a replica is said to hold, it was asked for before, and not long ago.
        names, held = served.adapter[here], served.held[here]
        for i in np.flatnonzero(held)[:200]:
            earlier = names[:i][::-1]
            since = earlier[: np.flatnonzero(earlier == names[i])[0]]
            assert len(set(since.tolist())) < SLOTS


def test_no_replica_has_more_begun_than_seats() -> None:
    asked, served = serve("least of two", load=1.2)
    begins = asked.at + served.wait
    ends = begins + asked.service
    for replica in range(REPLICAS):
        here = served.replica == replica
        moments = begins[here][::50] + 1e-9
        running = ((begins[here] <= moments[:, None]) & (ends[here] > moments[:, None])).sum(axis=1)
        assert running.max() <= 16


def test_affinity_loads_less_and_its_bound_keeps_waits_short() -> None:
    found = {policy: serve(policy)[1] for policy in POLICIES}
    loads = {policy: float((~of.held).mean()) for policy, of in found.items()}
    waits = {policy: float(np.quantile(of.wait, 0.99)) for policy, of in found.items()}
    assert loads["hash"] < loads["bounded affinity"] < loads["least of two"] / 2
    assert waits["bounded affinity"] < waits["hash"] / 5


def test_the_dead_are_asked_nothing_and_what_they_had_begun_is_done_elsewhere() -> None:
    asked, served = serve("bounded affinity", deaths=(30.0, 0.25))
    late = served.replica[asked.at >= 30]
    assert len(set(late.tolist())) == 15
    _, calm = serve("bounded affinity")
    cut = (asked.at < 30) & (asked.at + calm.wait + asked.service > 30) & ~np.isin(served.replica, late)
    assert not cut.any()
    assert np.isfinite(served.wait).all()


def test_ties_go_to_what_is_held() -> None:
    rng = np.random.default_rng(0)
    asked, _ = serve("bounded affinity")
    pairs = asked.adapters.copy()
    pairs[:, 1] = rng.integers(0, 3, len(asked))
    tied = Arrivals(asked.at, asked.service, pairs)
    options = {"replicas": REPLICAS, "slots": SLOTS, "load_s": LOAD_S}
    alone, ties = (simulate(tied, policy, **options) for policy in POLICIES[3:])
    assert (alone.adapter == pairs[:, 0]).all()
    assert ((ties.adapter == pairs[:, 0]) | (ties.adapter == pairs[:, 1])).all()
    assert (~ties.held).sum() < (~alone.held).sum()


def test_a_trace_may_be_of_either_form(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.cumsum(rng.integers(0, 9, 300)), rng.integers(1, 900, 300), rng.integers(1, 300, 300)])
    table, lines = tmp_path / "trace.csv", tmp_path / "trace.jsonl"
    np.savetxt(table, rows / (1000, 1, 1), delimiter=",", header="arrived_at,read,written")
    names = ("timestamp", "input_length", "output_length")
    lines.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows.tolist()))
    of_table, of_lines = (
        arrivals(zipf(10, 1.0), file, replicas=2, seconds=60, load=0.7, seed=1) for file in (table, lines)
    )
    assert np.allclose(of_table.at, of_lines.at)
    assert np.allclose(of_table.service, of_lines.service)
    assert of_table.service.std() > 0
