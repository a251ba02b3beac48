"""An adapter that is added becomes routable, is set aside, or waits, whatever happens to its worker."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import made_up_summary
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.cli.main import app
from traitroute.router import RoutingProfile
from traitroute.serving.jobs import JobState
from typer.testing import CliRunner

pytestmark = pytest.mark.slow
on_both = pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)


def test_an_added_adapter_is_measured_and_joins_the_profile(site) -> None:
    before = site.house.registry.latest_profile()
    site.house.add("new", seed=7)
    site.start_worker()
    site.await_state("new", AdapterState.READY)
    after = site.house.registry.latest_profile()
    site.wait(lambda: site.jobs()[0].state is JobState.DONE)
    [job] = site.jobs()
    assert (job.done, job.most, job.profile_version) == (72, 72, after.version)
    assert httpx.get(f"{site.url}/v1/jobs/{job.id}").json() == job.model_dump(mode="json")
    assert httpx.get(f"{site.url}/v1/jobs").json()["data"] == [job.model_dump(mode="json")]
    assert (after.origin, after.parent) == ("row", before.version)
    old, new = RoutingProfile.from_bytes(before.data), RoutingProfile.from_bytes(after.data)
    assert new.adapters == (*old.adapters, "new")
    assert new.trait_scores[:3].tolist() == old.trait_scores.tolist()
    assert len(site.notes.asked) == len(set(site.notes.asked)) == 6 * 24


@on_both
def test_a_worker_killed_again_and_again_measures_no_cell_twice(site) -> None:
    site.house.add("new", seed=7)
    moments = random.Random(1)
    kills = 2
    for _ in range(kills):
        heard = len(site.notes.asked) + moments.randrange(1, 40)
        worker = site.start_worker()
        site.wait(lambda heard=heard: len(site.notes.asked) >= heard)
        site.kill(worker)
    site.start_worker()
    site.await_state("new", AdapterState.READY)
    asked = Counter(site.notes.asked)
    again = {site.house.cell_of(each) for each, times in asked.items() if times > 1}
    assert site.notes.late == []
    assert len(asked) == 6 * 24
    assert len(again) <= kills
    assert len(site.house.registry.profile_versions()) == 2


@on_both
def test_two_workers_share_the_work_and_ask_nothing_twice(site) -> None:
    for _ in range(2):
        site.start_worker("--jobs", "2")
    site.house.add("new", seed=7)
    site.house.add("twin", seed=7)
    site.house.add("other", seed=8)
    for name in ("new", "twin", "other"):
        site.await_state(name, AdapterState.READY)
    cells = Counter(site.house.cell_of(each) for each in site.notes.asked)
    assert set(cells.values()) == {24}
    assert len(cells) == 9


def test_a_replacement_is_measured_on_a_tenth_of_the_row_while_the_old_weights_serve(site) -> None:
    old = site.house.registry.adapter("red")
    new = site.house.replace("red", seed=9)
    site.start_worker(share=0.1)
    site.wait(lambda: site.house.registry.replacement("red") is None)
    asked = Counter(model for model, _ in site.notes.asked)
    assert asked == {"tiny": 72, "red@2": 9}
    served = site.house.registry.adapter("red")
    assert (served.weights_digest, served.version) == (new.weights_digest, old.version + 1)
    summary = site.house.registry.latest_profile().summary
    assert summary.adapters.count("red") == 1
    assert "red" in summary.estimated.adapters


def test_adapters_at_fault_are_set_aside_and_can_be_retried(site) -> None:
    registry = site.house.registry
    bad = site.house.add("bad", seed=5)
    # As PEFT begins: lora_B is zero everywhere.
    idle = site.house.add("idle", seed=6, init_lora_weights=True)
    narrow = site.house.add("narrow", seed=8)
    weights = weights_file(registry, bad)
    weights.write_bytes(weights.read_bytes()[:5000])
    weights = weights_file(registry, narrow)
    halves = {n: v[:, ::2] if "lora_A" in n else v[::2] for n, v in load_file(weights).items()}
    save_file({name: np.ascontiguousarray(value) for name, value in halves.items()}, weights)
    worker = site.start_worker()
    assert "truncated or corrupt" in site.await_state("bad", AdapterState.DISABLED).note
    assert "trained for another" in site.await_state("narrow", AdapterState.DISABLED).note
    # The server has found out, and refuses it by name.
    assert "this server answers as base (" in site.await_state("idle", AdapterState.DISABLED).note
    site.wait(lambda: {job.state for job in site.jobs()} == {JobState.SET_ASIDE})
    assert registry.profile_versions() == [1]
    site.kill(worker)
    job = next(job for job in site.jobs() if job.adapter == idle.name)
    assert job.reason == registry.adapter("idle").note
    done = CliRunner().invoke(app, ["jobs", "retry", job.id, "--registry", str(registry.path)])
    assert done.exit_code == 0, done.output
    assert registry.adapter("idle").state is AdapterState.PENDING
    assert next(j for j in site.jobs() if j.id == job.id).state is JobState.QUEUED


def weights_file(registry: Registry, adapter: Adapter) -> Path:
    """The adapter's weights in the store, made writable to spoil them."""
    [file] = registry.weights.path(adapter.weights_digest).glob("*.safetensors")
    file.chmod(0o644)
    return file


def test_an_adapter_removed_meanwhile_ends_its_job(site) -> None:
    site.house.add("new", seed=7)
    site.start_worker()
    site.wait(lambda: len(site.notes.asked) > 5)
    site.house.registry.remove_adapter("new")
    site.wait(lambda: site.jobs()[0].state is JobState.WITHDRAWN)
    assert site.house.registry.profile_versions() == [1]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_job_outlives_its_database(site, postgres) -> None:
    site.house.add("new", seed=7)
    site.start_worker()
    site.wait(lambda: len(site.notes.asked) > 30)
    postgres.kill()
    time.sleep(2)
    postgres.start()
    site.await_state("new", AdapterState.READY)
    assert site.house.registry.latest_profile().summary.adapters[-1] == "new"


def test_a_worker_told_to_stop_leaves_its_job_to_the_next(site) -> None:
    site.house.add("new", seed=7)
    worker = site.start_worker()
    site.wait(lambda: len(site.notes.asked) > 5)
    worker.terminate()
    assert worker.wait(60) == 0, site.logs()
    assert site.jobs()[0].state is JobState.RUNNING
    site.start_worker()
    site.await_state("new", AdapterState.READY)
    assert site.notes.late == []


DAMAGED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from made_up_summary import made_up_summary
from traitroute.adapters import Registry, RegistryError
from traitroute.profiling.jobs.locks import open_locks
from traitroute.profiling.jobs.worker import Worker
registry = Registry.create(sys.argv[1])
registry.put_profile(b"x", made_up_summary())
try:
    Worker(registry, None, open_locks(registry.location)).run()
except RegistryError as exc:
    print(exc, flush=True)
# Threads of DBOS go on.
os._exit(0)
"""


def test_jobs_that_are_damaged_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "registry.jobs.db").write_bytes(b"this is no database" * 100)
    command = [sys.executable, "-c", DAMAGED, tmp_path / "registry.db", Path(made_up_summary.__file__).parent]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "the jobs of" in ended.stdout and "it is not an SQLite file" in ended.stdout
