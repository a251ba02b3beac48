"""Jobs in processes of this machine: side by side, with their errors, and none left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from traitroute.adapters import InputError, RunError
from traitroute.profiling.execution import processes as module
from traitroute.profiling.execution.processes import LocalProcesses, free_memory

sys.path.append(str(Path(__file__).parent))
from work import Work  # pyright: ignore[reportMissingImports]

pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
pytestmark = pytest.mark.slow

WAIT_S = 120.0


@pytest.fixture(scope="module")
def two() -> Iterator[LocalProcesses]:
    with LocalProcesses(2) as processes:
        yield processes


def seen(folder: Path) -> list[int]:
    return [int(file.name) for file in folder.iterdir() if file.name.isdigit()]


def await_gone(pids: list[int]) -> None:
    until = time.monotonic() + WAIT_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.05)


def test_jobs_are_done_side_by_side_with_their_share_of_the_threads(two: LocalProcesses, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    results = two.run([Work("meet", tmp_path), Work("meet", tmp_path)], lambda *each: told.append(each))
    assert {pid for pid, _ in results} == set(seen(tmp_path))
    assert len(seen(tmp_path)) == 2
    assert os.getpid() not in seen(tmp_path)
    # The tests' own setting; without it each has half of the cores.
    assert {threads for _, threads in results} == {os.environ["OMP_NUM_THREADS"]}
    assert sorted(told) == [(place, amount) for place in (0, 1) for amount in (0, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("refuse", InputError, "work refuse: the rows are not as they should be"),
        ("server", RunError, "work server: the server refuses"),
        ("slip", RuntimeError, "a slip of ours"),
        ("die", RunError, r"work die: its process ended \(SIGKILL\).*give fewer processes.*goes on"),
    ],
)
def test_the_error_of_a_job_reaches_who_asked_for_it_and_ends_the_others(
    two: LocalProcesses, tmp_path: Path, what: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        two.run([Work("wait", tmp_path), Work(what, tmp_path)], lambda place, amount: None)
    await_gone(seen(tmp_path))


def test_an_interrupted_run_leaves_no_process(two: LocalProcesses, tmp_path: Path) -> None:
    def interrupt(place: int, amount: float) -> None:
        if seen(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two.run([Work("wait", tmp_path), Work("meet", tmp_path), Work("wait", tmp_path)], interrupt)
    await_gone(seen(tmp_path))


def test_processes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "from pathlib import Path\n"
        "from work import Work\n"
        "from traitroute.profiling.execution.processes import LocalProcesses\n"
        "if __name__ == '__main__':\n"
        f"    jobs = [Work('wait', Path({str(tmp_path)!r}))] * 2\n"
        "    LocalProcesses(2).run(jobs, lambda place, amount: None)\n"
    )
    (tmp_path / "run.py").write_text(script)
    run = subprocess.Popen([sys.executable, str(tmp_path / "run.py")])
    until = time.monotonic() + WAIT_S
    while len(seen(tmp_path)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    run.kill()
    run.wait()
    assert len(seen(tmp_path)) == 2
    await_gone(seen(tmp_path))


def test_jobs_wait_for_memory_and_the_user_is_told_once(
    two: LocalProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    half = 6 * 2**30
    monkeypatch.setattr(module, "free_memory", lambda: 10 * 2**30)
    monkeypatch.setattr(two, "_warn", warnings.append)
    jobs = [Work("once", tmp_path, memory=half) for _ in range(3)]
    assert len({pid for pid, _ in two.run(jobs, lambda place, amount: None)}) == 1
    [warning] = warnings
    assert warning.startswith("work once may take 6.0 GiB, and 10.")
    assert warning.endswith("GiB are free here: 1 of 2 processes at a time")


def test_memory_is_that_of_the_control_group_where_it_limits(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**20}\n")
    assert free_memory(tmp_path) == 2**29 + 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 2**20
