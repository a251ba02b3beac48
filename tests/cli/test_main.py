"""The edge of the command line: help, exit codes, and nothing heavy loaded to get there."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from traitroute.adapters import InputError, RunError
from traitroute.cli.main import COMMANDS as ALL
from traitroute.cli.main import load

Run = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = [
    *("init", "profile", "adapters list", "adapters show", "matrix", "traits", "report", "predict"),
    *("compare", "compose", "route", "serve", "doctor", "demo"),
]


@pytest.fixture
def fail(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line whose one command raises the exception given."""

    def command(error: BaseException) -> subprocess.CompletedProcess[str]:
        app = typer.Typer()

        @app.command()
        def failing() -> None:
            raise error

        # By its module name: the package offers a function of the same name.
        monkeypatch.setattr(importlib.import_module("traitroute.cli.main"), "app", app)
        return run()

    return command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run: Run, command: str) -> None:
    ended = run(*command.split(), "--help")
    assert ended.returncode == 0
    assert "Example" in ended.stdout
    assert f"traitroute {command} " in ended.stdout.split("Example")[1]


def test_help_names_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.returncode == 0
    assert all(f" {command.split()[0]} " in ended.stdout for command in COMMANDS)


def test_help_keeps_the_shape_of_a_data_folder(run: Run) -> None:
    assert "TASK/{train,test}.jsonl" in run("profile", "--help").stdout


@pytest.mark.parametrize("arguments", [["nosuch"], ["route"], ["route", "x", "--nosuch"]])
def test_misuse_ends_with_code_two(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("error", [InputError("wrong\n  here"), ImportError("wrong\n  here")])
def test_wrong_input_ends_with_code_two_and_one_line(fail: Run, error: Exception) -> None:
    ended = fail(error)
    assert (ended.returncode, ended.stderr) == (2, "error: wrong here\n")


@pytest.mark.parametrize("error", [RunError("no answer\nlog"), OSError("no answer\nlog")])
def test_a_run_gone_wrong_ends_with_code_one_and_keeps_its_log(fail: Run, error: Exception) -> None:
    ended = fail(error)
    assert (ended.returncode, ended.stderr) == (1, "error: no answer\nlog\n")


def test_an_interrupted_command_says_how_to_go_on(fail: Run) -> None:
    ended = fail(KeyboardInterrupt())
    assert ended.returncode == 130
    assert "run the same command to go on" in ended.stderr


def test_a_mistake_of_ours_keeps_its_traceback(fail: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())


def test_a_message_is_printed_as_it_is(fail: Run) -> None:
    long = "[red]not markup[/red] " + "x" * 300
    assert fail(InputError(long)).stderr == f"error: {long}\n"


def test_a_database_that_is_away_is_no_bad_input(run: Run) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgresql]'")
    ended = run("adapters", "list", "--registry", "postgresql+psycopg://me@127.0.0.1:1/team")
    assert ended.returncode == 1
    assert "check that the server runs" in ended.stderr


LOADED = "import sys; from traitroute.cli import main\ntry: main()\nexcept SystemExit: print(*sys.modules)"


def loaded(*arguments: object) -> set[str]:
    """The top-level modules that are loaded once a command has run."""
    command = [sys.executable, "-c", LOADED, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in ended.stdout.splitlines()[-1].split()}


@pytest.mark.slow
def test_the_command_line_loads_neither_torch_nor_vllm() -> None:
    heavy = "{'torch', 'vllm', 'transformers', 'datasets', 'spacy'}"
    code = "import sys; from traitroute.cli.main import COMMANDS, load; [load(name) for name in COMMANDS]"
    code += f"; print(sorted({heavy} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_help_loads_none_of_the_libraries_that_take_long() -> None:
    slow = {"sklearn", "scipy", "alembic", "sqlalchemy", "pydantic", "numpy", "torch", "vllm"}
    assert "typer" in loaded("--help")
    assert not loaded("--help") & slow


def test_routing_loads_nothing_that_only_fitting_or_serving_needs(profiled: Path) -> None:
    modules = loaded("route", "how long do I boil eggs", "--registry", profiled)
    assert "numpy" in modules
    assert not modules & {"sklearn", "scipy", "alembic", "torch", "vllm", "transformers", "starlette"}


def test_the_list_of_commands_says_what_each_command_says() -> None:
    for name, (_, summary) in ALL.items():
        first = (load(name).help or "").strip().partition("\n\n")[0]
        assert " ".join(first.split()) == summary
