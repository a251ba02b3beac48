"""A first profile is measured on a server that runs: with the cells of this process, none measured twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reprofiling.measuring_log import MeasuringLog
from traitroute.adapters import AdapterState, Registry
from traitroute.cli.main import app
from traitroute.profiling import GivenAdapter, Suite, Task, open_base_model
from traitroute.profiling.matrix.everyday import REQUESTS
from traitroute.profiling.matrix.measure import cell_key
from traitroute.router import Router
from traitroute.serving.engines.engine import PromptTokenizer
from traitroute.serving.vllm import free_port, running_process
from typer.testing import CliRunner

from ...servers import serving
from ..test_pipeline import small_suite
from .conftest import EXAMPLES, SEEDS, House, Notes, Site

pytestmark = pytest.mark.slow
ENGINE = "openai-traitroute-answers"
COMMAND = str(Path(sys.executable).with_name("traitroute"))


def suite_of(house: House, *more: str) -> Path:
    """The house's tasks and adapters as a suite."""
    suite = Suite(
        name="mine",
        base_model=str(house.base),
        adapters=tuple(GivenAdapter(name=name) for name in (*SEEDS, *more)),
        tasks=tuple(Task.model_validate(spec) for spec in house.registry.tasks().values()),
    )
    file = house.root / "suite.yaml"
    file.write_text(suite.to_yaml())
    return file


def profile(site: Site, *options: str, suite: Path | None = None) -> Any:
    place = ["--registry", str(site.house.registry.path), "--server", site.url]
    return CliRunner().invoke(app, ["profile", str(suite or suite_of(site.house)), *place, *options])


def cells(registry: Registry) -> dict[tuple[str | None, str], Any]:
    stored = registry.latest_profile()
    assert stored is not None
    found = (registry.find_cell(key) for key in stored.summary.cells)
    return {(cell.adapter, cell.task): cell.outcomes for cell in found if cell is not None}


def test_a_profile_through_a_server_is_that_of_this_process(site: Site) -> None:
    registry = site.house.registry
    here, router = cells(registry), Router.from_registry(registry)
    done = profile(site)
    assert done.exit_code == 0, done.output
    assert "answers are measured, likelihoods are not" in done.output
    assert Counter(model for model, _ in site.notes.asked) == dict.fromkeys(("tiny", *SEEDS), 3 * EXAMPLES)
    there = cells(registry)
    assert here.keys() == there.keys()
    for place, outcomes in there.items():
        for each in (
            "strict",
            "lenient",
            "score",
            "output_digest",
            "output_tokens",
            "finish_reason",
            "predicted_label",
        ):
            assert np.array_equal(getattr(outcomes, each), getattr(here[place], each)), (place, each)
        assert np.isnan(outcomes.log_likelihood).all()
    again = Router.from_registry(registry)
    for outcome in site.house.registry.tasks().values():
        for example in Task.model_validate(outcome).test_examples:
            assert again.route(example.prompt).adapter == router.route(example.prompt).adapter


def test_what_is_measured_already_is_asked_for_by_nobody(site: Site) -> None:
    assert profile(site).exit_code == 0
    asked = len(site.notes.asked)
    assert profile(site).exit_code == 0
    assert len(site.notes.asked) == asked


def test_client_and_server_may_die_at_any_moment_and_nothing_finished_is_asked_again(house: House) -> None:
    base, keys, moments = open_base_model(str(house.base)), house.registry.task_digests(), random.Random(3)
    prompts = PromptTokenizer(house.base)
    tasks = {
        tuple(prompts.prompt(e.messages)): name
        for name, spec in house.registry.tasks().items()
        for e in Task.model_validate(spec).test_examples
    }
    adapters = {name: house.registry.adapter(name) for name in SEEDS}

    def is_finished(cell: tuple[str, str]) -> bool:
        key = cell_key(base.digest, adapters.get(cell[0]), keys[cell[1]], ENGINE)
        return house.registry.find_cell(key) is not None

    port, suite = free_port(), suite_of(house)
    log = MeasuringLog(f"http://127.0.0.1:{port}", tasks.get, is_finished)
    serve = [COMMAND, "serve", str(house.base), "--engine", "transformers", "--port", str(port)]
    serve += ["--registry", str(house.registry.path)]
    with log.listening():
        measure = [COMMAND, "profile", str(suite), "--server", log.url, "--registry", str(house.registry.path)]
        with running_process(serve, log.server, log_path=house.root / "server-0.log") as server:
            client = start(measure, house, 0)
            await_more(log, moments.randrange(1, 140), client)
            client.send_signal(signal.SIGKILL)
            client.wait()
            client = start(measure, house, 1)
            await_more(log, moments.randrange(1, 100), client)
            os.killpg(server.pid, signal.SIGKILL)
        with running_process(serve, log.server, log_path=house.root / "server-1.log"):
            assert client.wait(300) == 0, (house.root / "client-1.log").read_text()
    assert len(log.examples) == 4 * 3 * EXAMPLES
    assert sum(log.late.values()) == 0
    assert len(log.repeated) <= 2
    assert len(house.registry.profile_versions()) == 2


def start(command: list[str], house: House, number: int) -> subprocess.Popen[bytes]:
    with (house.root / f"client-{number}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def await_more(log: MeasuringLog, more: int, client: subprocess.Popen[bytes]) -> None:
    """Wait until so many further answers were asked for."""
    heard, until = log.asked + more, time.monotonic() + 300
    while log.asked < heard:
        assert client.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def test_what_a_suite_trains_is_registered_and_measured_on_the_server_that_follows(
    tiny_chat: Path, tmp_path: Path
) -> None:
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    suite, path = tmp_path / "suite.yaml", tmp_path / "registry.db"
    suite.write_text(json.dumps(small_suite(tiny_chat)))
    Registry.create(path).close()
    notes = Notes()
    served = open_app(tiny_chat, path, name=tiny_chat.name, options=EmbeddedOptions(precision="float32"))
    with serving(notes.wrap(served)) as url:
        done = CliRunner().invoke(app, ["profile", str(suite), "--registry", str(path), "--server", url])
    assert done.exit_code == 0, done.output
    assert Counter(model for model, _ in notes.asked) == dict.fromkeys(
        ("tiny", "sentiment2", "structured"), 3 * 12 + REQUESTS
    )
    with Registry.open(path, read_only=True) as registry:
        assert {a.name: a.state for a in registry.adapters()} == dict.fromkeys(
            ("sentiment2", "structured"), AdapterState.READY
        )


def test_a_server_of_other_weights_under_the_same_name_measures_nothing(house: House) -> None:
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    options = EmbeddedOptions(precision="float32")
    served = open_app(house.base, house.registry.location, name="tiny", base_digest="f" * 64, options=options)
    notes = Notes()
    with serving(notes.wrap(served)) as url:
        done = profile(Site(house, url, notes))
    assert "answers with 0 of 3 adapters: nothing was measured" in str(done.exception)
    assert "not for this base" in str(done.exception)
    assert notes.asked == []
