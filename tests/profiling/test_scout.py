"""A small base model chooses the sources that are worth an adapter of a larger one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import InputError, Registry
from traitroute.profiling import Suite
from traitroute.profiling.scout import choose, reached, scout, with_sources

BASE = np.array([0.2, 0.2, 0.2])
SCORES = np.array(
    [
        [0.6, 0.5, 0.1],
        [0.7, 0.4, 0.2],
        [0.2, 0.2, 0.6],
        [0.1, 0.1, 0.1],
    ]
)


def small_suite(base: Path) -> Suite:
    def task(name: str, prompt: str, **more: object) -> dict:
        rows = {"name": name, "rows": {"built_in": "mini"}, "prompt": prompt + "\n{{ input }}"}
        return {**rows, "train": 48, "test": 12, "max_tokens": 10, **more}

    return Suite.model_validate(
        {
            "name": "small",
            "base_model": str(base),
            "engine": "transformers",
            "training": {"rank": 8, "alpha": 16, "learning_rate": 1e-2},
            "tasks": [
                task("sentiment2", "Good?", labels=["negative", "positive"], metric="label", source=True),
                task("paraphrase", "Same meaning? yes or no.", labels=["no", "yes"], metric="label", source=True),
                task("structured", "Turn it into JSON.", metric="json", source=True),
            ],
            "ablations": [{"name": "only_stops", "of": "structured", "change": "stop_only"}],
        }
    )


def test_first_comes_the_best_source_and_then_what_it_lacks() -> None:
    assert choose(BASE, SCORES, 2) == [0, 2]
    assert choose(BASE, SCORES, 3) == [0, 2, 1]
    assert choose(BASE, SCORES, 9) == [0, 2, 1, 3]


def test_what_is_reached_is_the_best_of_each_task_and_base_among_them() -> None:
    assert reached(BASE, SCORES[3:]) == pytest.approx(BASE.mean())
    assert reached(BASE, SCORES[[0, 2]]) == pytest.approx((0.6 + 0.5 + 0.6) / 3)
    assert reached(BASE, SCORES[:0]) == pytest.approx(BASE.mean())


def test_sources_that_were_not_chosen_are_measured_without_an_adapter(tiny_chat: Path) -> None:
    left = with_sources(small_suite(tiny_chat), ["sentiment2", "paraphrase"])
    assert [t.name for t in left.sources] == ["sentiment2", "paraphrase"]
    assert [t.name for t in left.tasks] == ["sentiment2", "paraphrase", "structured"]
    assert left.ablations == ()


def test_it_says_what_is_wrong_with_what_was_asked(tiny_chat: Path, tmp_path: Path) -> None:
    suite = small_suite(tiny_chat)
    with pytest.raises(InputError, match="is the base model of the suite itself"):
        scout(suite, str(tiny_chat), tmp_path, keep=2)
    with pytest.raises(InputError, match="3 sources, of which 3 are to be kept: leave out --scout"):
        scout(suite, str(tiny_chat), tmp_path, keep=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_trains_on_the_large_base_only_what_the_small_one_chose(tiny_chat: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
    from traitroute.cli.main import app
    from typer.testing import CliRunner

    large = tmp_path / "large"
    shutil.copytree(tiny_chat, large)
    config = json.loads((large / "config.json").read_text())
    (large / "config.json").write_text(json.dumps(config | {"of_its_own": 1}))
    file = tmp_path / "suite.yaml"
    file.write_text(json.dumps(small_suite(large).model_dump(mode="json", exclude_defaults=True)))
    command = [
        "profile",
        str(file),
        "--scout",
        str(tiny_chat),
        "--scout-keep",
        "2",
        "--registry",
        str(tmp_path / "t.db"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    with Registry.open(tmp_path / "t.runs/scout/registry.db") as small, Registry.open(tmp_path / "t.db") as registry:
        assert len({cell.adapter for cell in small.cells()}) == 1 + 3
        trained = {adapter.name for adapter in registry.adapters()} - {"only_stops"}
        profile = registry.latest_profile()
    assert len(trained) == 2
    assert profile is not None and set(profile.summary.tasks) == {"sentiment2", "paraphrase", "structured"}
    assert "of that of all 3" in done.output
