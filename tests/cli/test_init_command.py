"""From adapters and examples to a routed request: `traitroute init`, then `profile` of the suite that it wrote."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitroute.adapters import AdapterState, Registry
from traitroute.profiling import load_suite
from traitroute.router import Router

Run = Callable[..., Any]
MakeAdapter = Callable[..., Path]

CHAT = "w3 {{ messages | map(attribute='content') | join(' ') }} w2"
TASKS = {"greet": "w9", "nod": "w10", "wave": "w11"}


def write_tasks(folder: Path, rows: int = 12) -> Path:
    for number, (name, word) in enumerate(TASKS.items(), start=20):
        lines = [{"input": f"{word} w{number + i}", "target": f"w{5 + i % 2}"} for i in range(rows)]
        (folder / name).mkdir(parents=True)
        (folder / name / "test.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder of three tasks without training rows."""
    return write_tasks(tmp_path / "tasks")


def test_without_a_terminal_what_is_missing_is_named(refusal: Run, tmp_path: Path, make_adapter: MakeAdapter) -> None:
    out = ("--out", tmp_path / "suite.yaml")
    assert "--adapters is not given, and this is no terminal" in refusal("init", *out)
    given = ("--adapter", f"polite={make_adapter()}")
    assert "--examples is not given, and this is no terminal" in refusal("init", *given, *out)


def test_a_suite_that_is_there_is_kept(refusal: Run, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text("mine")
    assert "suite.yaml is there already" in refusal("init", "--adapters", tmp_path, "--out", tmp_path / "suite.yaml")
    assert (tmp_path / "suite.yaml").read_text() == "mine"


def test_an_adapter_without_a_place_is_refused(refusal: Run, tasks: Path, tmp_path: Path) -> None:
    line = refusal("init", "--adapter", "polite", "--examples", tasks, "--out", tmp_path / "suite.yaml")
    assert "--adapter polite=FOLDER" in line


@pytest.mark.parametrize("command", ["init", "profile"])
def test_a_folder_without_tasks_is_refused_and_nothing_is_written(
    refusal: Run, tmp_path: Path, make_adapter: MakeAdapter, command: str
) -> None:
    (tmp_path / "none").mkdir()
    option = "--examples" if command == "init" else "--targets"
    given = ("--adapter", f"polite={make_adapter()}", "--base", "x", option, tmp_path / "none")
    assert "none holds no task" in refusal(command, *given, "--registry", tmp_path / "new.db")
    assert not list(tmp_path.glob("new*"))


def test_one_task_is_too_few(refusal: Run, tasks: Path, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    line = refusal("profile", "--adapter", f"polite={make_adapter()}", "--targets", tasks / "greet")
    assert "at least 2 tasks are needed, to tell requests of one kind from those of another" in line


def test_a_task_with_no_rows_is_refused(refusal: Run, tasks: Path, make_adapter: MakeAdapter) -> None:
    (tasks / "nod" / "test.jsonl").write_text("")
    line = refusal("profile", "--adapter", f"polite={make_adapter()}", "--targets", tasks)
    assert f"{tasks / 'nod' / 'test.jsonl'} holds no rows" in line


def test_rows_of_an_adapter_that_is_not_given_are_refused(refusal: Run, tasks: Path, make_adapter: MakeAdapter) -> None:
    given = ("--adapter", f"polite={make_adapter()}", "--targets", tasks, "--rows", "rude=rows.jsonl")
    assert "--rows rude=FILE: no adapter of this name is given" in refusal("profile", *given)


@pytest.mark.slow
def test_on_a_terminal_what_is_missing_is_asked_for(tasks: Path, tmp_path: Path, make_adapter: MakeAdapter) -> None:
    make_adapter("polite")
    terminal, end = pty.openpty()
    command = [str(Path(sys.executable).with_name("traitroute")), "init", "--smoke", "0"]
    os.write(terminal, f"{tmp_path / 'polite'}\n{tasks}\n".encode())
    asked = subprocess.run(
        command, cwd=tmp_path, stdin=end, stdout=end, stderr=subprocess.PIPE, timeout=300, check=False
    )
    os.close(end)
    assert asked.returncode == 0, asked.stderr
    printed = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "Your adapters" in printed
    assert "Examples of your tasks" in printed
    suite = load_suite(tmp_path / "suite.yaml")
    assert ([a.name for a in suite.adapters], [t.name for t in suite.tasks]) == (["polite"], list(TASKS))
    assert suite.base_model == "tiny-llama"


@pytest.mark.slow
def test_from_folders_of_adapters_and_examples_to_a_routed_request(
    run: Run, tasks: Path, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.save(tmp_path / "base")
    settings = base / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": CHAT}))
    for seed, name in enumerate(("one", "two")):
        tiny.save_adapter(base, tmp_path / "loras" / name, seed=seed)
    tiny.save_adapter(base, tmp_path / "loras" / "idle", seed=0, init_lora_weights=True)
    monkeypatch.chdir(tmp_path)
    told = run("init", "--adapters", "loras", "--examples", "tasks", "--smoke", "4", "--engine", "transformers")
    assert told.returncode == 0, told.stderr
    assert "wrote suite.yaml: 3 adapters, 3 tasks" in told.stdout
    assert "idle answered as base on these few examples" in told.stdout
    # Base and three adapters on twelve rows of three tasks, and 24 everyday requests.
    assert "a full profile asks for 240 answers: about " in told.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"base", "loras", "tasks", "suite.yaml"}
    assert [a["name"] for a in yaml.safe_load(Path("suite.yaml").read_text())["adapters"]] == ["idle", "one", "two"]
    assert load_suite("suite.yaml").base_model == str(base)

    done = run("profile", "suite.yaml", "--engine", "transformers")
    assert done.returncode == 0, done.stderr
    assert "train adapters" not in done.stdout
    assert "there are no traits to speak of" in done.stdout
    assert "warning: idle was set aside" in done.stdout
    with Registry.open("traitroute.db", read_only=True) as registry:
        assert {a.name: a.state for a in registry.adapters()} == {
            "idle": AdapterState.DISABLED,
            "one": AdapterState.READY,
            "two": AdapterState.READY,
        }
        # Of so few words no everyday request is made.
        assert registry.profile(1).summary.everyday == {}
        decision = Router.from_registry(registry).route("w9 w22")
    assert {each.adapter for each in decision.ranking} == {"one", "two"}

    again = run("profile", "--adapter", "one", "--targets", "tasks", "--engine", "transformers")
    assert again.returncode == 0, again.stderr
    assert "profile version 2" in again.stdout
