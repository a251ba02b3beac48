"""`traitroute profile`: what is refused before anything is trained."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

Refusal = Callable[..., str]

ROW = {"input": "say yes", "target": "yes"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of three tasks with two rows a split."""
    for task in ("greet", "nod", "wave"):
        row = ROW | {"input": f"{task} and say yes"}
        for split in ("train", "test"):
            write_rows(tmp_path / "data" / task / f"{split}.jsonl", row, row)
    return tmp_path / "data"


def write_rows(file: Path, *rows: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_suite_or_data_must_be_given(refusal: Refusal) -> None:
    line = refusal("profile")
    assert "give adapters and tasks (`--adapters FOLDER --targets FOLDER`), a suite" in line
    assert line == refusal("profile", "--adapter", "polite")


def test_data_must_have_something_to_replace(refusal: Refusal) -> None:
    line = refusal("profile", "mini", "--data", "somewhere")
    assert "no task of suite mini reads a local folder" in line


def test_an_unknown_engine_is_met_with_the_known_ones(refusal: Refusal) -> None:
    line = refusal("profile", "mini", "--engine", "llamafile")
    assert "auto, transformers or vllm, not 'llamafile'" in line


def test_an_unknown_built_in_suite_is_met_with_those_built_in(refusal: Refusal) -> None:
    line = refusal("profile", "huge")
    assert "'huge'" in line
    assert "built in: ['mini', 'paper', 'paper-local']" in line


def test_a_suite_with_an_unknown_key_is_told_which(refusal: Refusal, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: mine\nbase_modle: tiny\ntasks: []\n")
    line = refusal("profile", suite)
    assert str(suite) in line
    assert "base_modle: " in line


def test_a_suite_that_is_not_yaml_is_refused_in_one_line(refusal: Refusal, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("tasks: [one\n")
    assert f"{suite} is not YAML" in refusal("profile", suite)


def test_a_suite_file_that_is_not_there_is_named(refusal: Refusal) -> None:
    assert "nosuch.yaml cannot be read" in refusal("profile", "nosuch.yaml")


def test_data_needs_sources(refusal: Refusal, data: Path) -> None:
    assert "--data needs --sources" in refusal("profile", "--data", data)


def test_an_unknown_task_is_met_with_the_known_ones(refusal: Refusal, data: Path) -> None:
    line = refusal("profile", "--data", data, "--sources", "greet,bow")
    assert "'bow'" in line
    assert "['greet', 'nod', 'wave']" in line


def test_a_row_without_target_is_named_by_file_and_line(refusal: Refusal, data: Path) -> None:
    file = data / "nod" / "test.jsonl"
    write_rows(file, ROW, {"input": "say no"})
    line = refusal("profile", "--data", data, "--sources", "greet,nod", "--targets", "wave")
    assert f"{file}, line 2" in line
    assert '"target"' in line


@pytest.mark.slow
def test_tasks_that_would_share_their_cells_are_refused_by_name(refusal: Refusal, data: Path) -> None:
    (data / "wave" / "test.jsonl").write_bytes((data / "greet" / "test.jsonl").read_bytes())
    line = refusal("profile", "--data", data, "--sources", "greet,nod", "--targets", "wave")
    assert "tasks greet and wave have the same rows, prompt, token limit and metric" in line
    assert "leave one out" in line


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b'{"input": "x", "target": "positive", "label": 1}', "the target 'positive' is wrong by"),
        (b'{"input": "x", "target": "1", "label": null}', "the label is None"),
        (b'{"input": "\\ud83d", "target": "1", "label": 1}', "half a character"),
        (b'{"input": "x", "target": "1", "label": 1, "label": 0}', "given twice"),
        (b'{"input": "x", "tar', "was it cut short?"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line_and_nothing_is_written(
    refusal: Refusal, data: Path, tmp_path: Path, row: bytes, told: str
) -> None:
    file, registry = data / "nod" / "train.jsonl", tmp_path / "new.db"
    good = [{"input": "a", "target": "0", "label": 0}, {"input": "b", "target": "1", "label": 1}]
    for each in (file, file.with_name("test.jsonl")):
        write_rows(each, *good)
    file.write_bytes(file.read_bytes() + row)
    command = ("profile", "--data", data, "--sources", "greet,nod", "--targets", "wave")
    line = refusal(*command, "--registry", registry)
    assert f"{file}, line 3" in line
    assert told in line
    assert not list(tmp_path.glob("new*"))


def test_rows_that_would_vanish_from_training_are_refused_and_nothing_is_written(
    refusal: Refusal, data: Path, tmp_path: Path, tiny: Any
) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
    registry, base = tmp_path / "new.db", tiny.save(tmp_path / "base")
    settings = base / "tokenizer_config.json"
    chat = {"chat_template": "w3 {{ messages | map(attribute='content') | join(' ') }} w2"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | chat))
    words = [{"input": "w5 " * n, "target": "w6"} for n in (2, 200, 200, 200)]
    write_rows(data / "nod" / "train.jsonl", *words)
    command = ("profile", "--data", data, "--sources", "greet,nod", "--targets", "wave")
    line = refusal(*command, "--base", base, "--registry", registry)
    assert "nod: 3 of 4 training rows (75%) are longer than 128 tokens, up to 203" in line
    assert "of so few rows, 1, no adapter is trained" in line
    assert not list(tmp_path.glob("new*"))


def test_nothing_is_written_for_refused_input(refusal: Refusal, tmp_path: Path) -> None:
    registry = tmp_path / "new.db"
    refusal("profile", "huge", "--registry", registry)
    assert not registry.exists()


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("datasets"), reason="needs pip install 'traitroute[profile]'")
def test_a_base_model_that_is_not_there_is_refused_without_a_network(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from traitroute.cli import main; main()", "profile"]
    command += ["--data", str(data), "--sources", "greet,nod", "--targets", "wave"]
    command += ["--base", "nobody/no-such-model", "--registry", str(tmp_path / "new.db")]
    ended = subprocess.run(
        command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: base model 'nobody/no-such-model' is neither")
    assert ended.stderr.count("\n") == 1
