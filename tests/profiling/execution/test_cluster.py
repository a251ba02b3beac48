"""Jobs on a real Ray cluster of two nodes, processes of this machine: killed ones are replaced, unfit ones left out."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from traitroute.adapters import InputError, Location, Registry, RunError
from traitroute.profiling import open_base_model
from traitroute.profiling.execution import cluster as cluster_module
from traitroute.profiling.execution.cluster import RayCluster
from traitroute.profiling.execution.terms import Terms, machine_name
from traitroute.serving.engines.local_model import VARIABLE

from ...ray_nodes import ASKED, NOT_ASKED, head_node, ports, started

sys.path.append(str(Path(__file__).parent))
from work import Work, write_base  # pyright: ignore[reportMissingImports]

pytest.importorskip("ray", reason="needs Ray: pip install 'traitroute[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    # Beside other tests on two cores nodes miss the times that Ray gives them, and then it may wait for minutes.
    pytest.mark.skipif(ASKED not in os.environ, reason=NOT_ASKED),
]

WAIT_S = 300.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head without processors, which no job is sent to."""
    # Where the nodes find the jobs' module.
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with head_node({"PYTHONPATH": path}, num_cpus=0) as cluster:
        yield cluster


@contextmanager
def node(nodes: Any, **settings: Any) -> Iterator[Any]:
    added = started(lambda: nodes.add_node(num_cpus=1, memory=2**31, **ports(), **settings))
    try:
        yield added
    finally:
        if added in nodes.worker_nodes:
            nodes.remove_node(added, allow_graceful=False)


def seen(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_jobs_go_to_both_nodes_and_a_failing_one_tells_why(nodes: Any, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    with node(nodes), node(nodes), RayCluster(nodes.address) as cluster:
        assert cluster.workers == 2
        jobs = [Work("meet", tmp_path), Work("meet", tmp_path)]
        results = cluster.run(jobs, lambda *each: told.append(each))
        assert {str(pid) for pid, _ in results} == set(seen(tmp_path))
        assert len(seen(tmp_path)) == 2
        # Ray's rule: as many threads as processors were asked for.
        assert {threads for _, threads in results} == {"1"}
        assert {(0, 1.0), (1, 1.0)} <= set(told)
        with pytest.raises(InputError, match="work refuse: the rows are not as they should be"):
            cluster.run([Work("refuse", tmp_path)], lambda place, amount: None)
        with pytest.raises(RuntimeError, match="a slip of ours"):
            cluster.run([Work("slip", tmp_path)], lambda place, amount: None)


def killer(nodes: Any, folder: Path, *which: Any) -> threading.Thread:
    """Kills the one node of `which` where the first job has begun."""

    def kill() -> None:
        until = time.monotonic() + WAIT_S
        while not seen(folder) and time.monotonic() < until:
            time.sleep(0.05)
        began = psutil.Process(int(seen(folder)[0])).ppid()
        doomed = next(each for each in which if dict(each.live_processes())["raylet"].pid == began)
        nodes.remove_node(doomed, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_the_job_of_a_killed_node_is_done_by_another(nodes: Any, tmp_path: Path) -> None:
    with node(nodes) as one, node(nodes) as other, RayCluster(nodes.address) as cluster:
        killing = killer(nodes, tmp_path, one, other)
        [(pid, _)] = cluster.run([Work("wait once", tmp_path)], lambda place, amount: None)
        killing.join()
    assert len(seen(tmp_path)) == 2
    assert str(pid) in seen(tmp_path)


def test_a_run_ends_when_only_unfit_machines_are_left(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "ALONE_S", 2.0)
    unfit = node(nodes, env_vars={"TEST_UNFIT": "1"})
    with unfit, node(nodes) as fit, RayCluster(nodes.address) as cluster:
        killing = killer(nodes, tmp_path, fit)
        with pytest.raises(RunError, match=r"no machine of the cluster can do this run: .*it computes otherwise"):
            cluster.run([Work("wait once", tmp_path)], lambda place, amount: None)
        killing.join()


def test_an_unfit_machine_is_left_out_by_name_and_the_others_go_on(nodes: Any, tmp_path: Path) -> None:
    warnings: list[str] = []
    unfit = node(nodes, env_vars={"TEST_UNFIT": "1"})
    with unfit, node(nodes), RayCluster(nodes.address, warn=warnings.append) as cluster:
        results = cluster.run([Work("work", tmp_path) for _ in range(6)], lambda place, amount: None)
    assert len(results) == 6
    [warning] = warnings
    assert warning.startswith(f"machine {os.uname().nodename} (node ")
    assert warning.endswith("is left out: it computes otherwise")


def test_one_of_another_precision_or_base_model_is_left_out_by_name(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_base(tmp_path / "base", fill=1.0)
    place = Location(path=tmp_path / "t.db")
    terms = Terms(open_base_model(str(base)), "float32", place, tmp_path, "me", machine_name())
    job, warnings = Work("work", tmp_path, terms=terms), list[str]()
    named = rf"{re.escape(os.uname().nodename)} \(node \w{{8}}\)"
    other, same = ({"env_vars": {VARIABLE: precision}} for precision in ("bfloat16", "float32"))
    with node(nodes, **other), node(nodes, **same), RayCluster(nodes.address, warn=warnings.append) as cluster:
        assert len(cluster.run([job] * 4, lambda place, amount: None)) == 4
        [warning] = warnings
        assert re.match(rf"machine {named} is left out: it computes in bfloat16 and this run in float32", warning)
    write_base(base, fill=2.0)
    # The nodes of before may still be taken to be alive.
    monkeypatch.setattr(cluster_module, "ALONE_S", 2.0)
    with node(nodes, **same), RayCluster(nodes.address) as cluster:
        wanted = rf"no machine .*{named}: {re.escape(str(base))} has digest \w+ there, and {terms.base.digest[:12]} in"
        with pytest.raises(RunError, match=wanted):
            cluster.run([job], lambda place, amount: None)


def test_a_file_is_for_one_machine(tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with RayCluster(nodes.address) as cluster, Registry.create(tmp_path / "t.db") as registry:
        cluster.check(registry)
        monkeypatch.setattr("platform.node", lambda: "laptop")
        with pytest.raises(InputError, match=r"t.db is a file, .* 1 more .*--registry postgresql.*TRAITROUTE_WEIGHTS"):
            cluster.check(registry)


def test_no_cluster_is_told_in_one_line() -> None:
    with pytest.raises(RunError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        RayCluster("127.0.0.1:1")
