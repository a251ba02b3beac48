"""A new task is measured where the adapters are served, by the same engine as the rows of a worker."""

import json
from collections import Counter

import pytest
from traitroute.adapters import AdapterState
from traitroute.cli.main import app
from typer.testing import CliRunner

pytestmark = pytest.mark.slow
TEST = 8


def test_a_new_task_is_measured_on_the_server_and_a_later_row_covers_it(site) -> None:
    folder = site.house.root / "more"
    folder.mkdir()
    rows = [{"input": f"w{10 + i} w{20 + i} w{30 + i}", "target": "w9"} for i in range(TEST)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    place = ["--server", site.url, "--registry", str(site.house.registry.path)]
    done = CliRunner().invoke(app, ["tasks", "add", str(folder), *place])
    assert done.exit_code == 0, done.output
    asked = Counter(model for model, _ in site.notes.asked)
    assert asked == {"tiny": TEST, "red": TEST, "green": TEST, "blue": TEST}
    stored = site.house.registry.latest_profile()
    assert (stored.origin, stored.summary.tasks[-1]) == ("task", "more")
    site.house.add("new", seed=7)
    site.start_worker()
    site.await_state("new", AdapterState.READY)
    assert len(site.house.registry.latest_profile().summary.scores[-1]) == 4
