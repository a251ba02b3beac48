"""A first profile is measured on a server that runs: with the cells of this process, none measured twice."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import Registry
from traitroute.cli.main import app
from traitroute.profiling import GivenAdapter, Suite, Task
from traitroute.router import Router
from typer.testing import CliRunner

from .conftest import EXAMPLES, SEEDS, House, Site

pytestmark = pytest.mark.slow
COMMAND = str(Path(sys.executable).with_name("traitroute"))
ENGINES = {"here": "transformers", "there": "openai-traitroute-answers"}


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
