"""A new task is measured where the adapters are served, by the same engine as the rows of a worker."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from traitroute.adapters import AdapterState
from traitroute.cli.main import app
from typer.testing import CliRunner

from .conftest import House, Site

pytestmark = pytest.mark.slow
TEST = 8


@contextmanager
def weights_away(house: House) -> Iterator[None]:
    """The base model's weights are on its server only."""
    _ = house.digest
    weights = house.base / "model.safetensors"
    away = weights.rename(weights.with_suffix(".away"))
    try:
        yield
    finally:
        away.rename(weights)


def test_a_new_task_is_measured_on_the_server_and_a_later_row_covers_it(site: Site) -> None:
    folder = site.house.root / "more"
    folder.mkdir()
    rows = [{"input": f"w{10 + i} w{20 + i} w{30 + i}", "target": "w9"} for i in range(TEST)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    place = ["--server", site.url, "--registry", str(site.house.registry.path)]
    with weights_away(site.house):
        done = CliRunner().invoke(app, ["tasks", "add", str(folder), *place])
    assert done.exit_code == 0, done.output
    asked = Counter(model for model, _ in site.notes.asked)
    assert asked == {"tiny": TEST, "red": TEST, "green": TEST, "blue": TEST}
    stored = site.house.registry.latest_profile()
    assert stored is not None
    assert (stored.origin, stored.summary.tasks[-1]) == ("task", "more")
    site.house.add("new", seed=7)
    with weights_away(site.house):
        site.start_worker()
        site.await_state("new", AdapterState.READY)
    later = site.house.registry.latest_profile()
    assert later is not None and len(later.summary.scores[-1]) == 4
