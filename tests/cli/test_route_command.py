"""`traitroute route`: the answer, its evidence, and requests that cannot be routed."""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from traitroute.adapters import Registry
from traitroute.adapters.registry import sqlite as sqlite_file
from traitroute.router import Router, RoutingDecision

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]

COOKING = "a recipe with rice and beans a"
UNKNOWN = "zq 81 xv"


def decide(path: Path, text: str) -> RoutingDecision:
    with Registry.open(path, read_only=True) as registry:
        return Router.from_registry(registry).route(text, explain=True)


@pytest.mark.parametrize(("text", "chosen"), [(COOKING, "cook"), (UNKNOWN, "base")])
def test_prints_the_adapter_or_base_and_nothing_else(run: Run, profiled: Path, text: str, chosen: str) -> None:
    ended = run("route", text, "--registry", profiled)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{chosen}\n", "")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_dash_reads_standard_input(run: Run, profiled: Path, end: str) -> None:
    ended = run("route", "-", "--json", "--registry", profiled, stdin=f"{COOKING}{end}".encode())
    assert RoutingDecision.model_validate_json(ended.stdout) == decide(profiled, COOKING)


def test_the_registry_may_come_from_the_environment(run: Run, profiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_REGISTRY", str(profiled))
    assert run("route", COOKING).stdout == "cook\n"


def test_explain_ranks_base_between_help_and_harm(run: Run, profiled: Path) -> None:
    lines = run("route", COOKING, "--explain", "--registry", profiled).stdout.splitlines()
    rows = [line.strip("│ ").split()[0] for line in lines if line.startswith("│")]
    assert lines[0] == rows[0] == "cook"
    assert rows[1] == "base"
    assert set(rows[2:]) == {"coder", "critic"}


def test_explained_contributions_add_up_to_the_gain(run: Run, profiled: Path) -> None:
    out = run("route", COOKING, "--explain", "--registry", profiled).stdout
    (line,) = re.findall(r"predicted gain of the best = (.+)", out)
    parts = [float(part) for part in re.findall(r"[+-]\d\.\d{3}", line)]
    gain = decide(profiled, COOKING).gain
    assert line.startswith("mean ")
    assert len(parts) == 4 + ("bound" in line)
    assert "what cook was trained on is not known: no part is evidence from it" in out
    assert sum(parts) == pytest.approx(gain, abs=0.002)


def test_explain_names_the_nearest_task(run: Run, profiled: Path) -> None:
    out = run("route", COOKING, "--explain", "--registry", profiled).stdout
    assert re.search(r"most like: cook \d\.\d\d", out)


@pytest.mark.parametrize("text", [COOKING, UNKNOWN])
def test_json_is_the_decision_of_the_router(run: Run, profiled: Path, text: str) -> None:
    ended = run("route", text, "--json", "--registry", profiled)
    assert RoutingDecision.model_validate_json(ended.stdout) == decide(profiled, text)


@pytest.mark.parametrize(("text", "stdin"), [("", b""), (" \n", b""), ("-", b"\n"), (".", b""), ("42", b"")])
def test_a_request_without_words_is_for_base(run: Run, profiled: Path, text: str, stdin: bytes) -> None:
    ended = run("route", text, "--explain", "--registry", profiled, stdin=stdin)
    assert ended.stdout.startswith("base\nno-text: ")
    assert ended.returncode == 0


def test_standard_input_that_is_not_text_is_refused(refusal: Refusal, profiled: Path) -> None:
    assert "not utf-8 text" in refusal("route", "-", "--registry", profiled, stdin=b"\xff\xfe")


def test_an_argument_that_is_not_text_is_still_routed(run: Run, profiled: Path) -> None:
    undecodable = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert run("route", undecodable, "--registry", profiled).stdout == "base\n"


def test_a_registry_without_a_profile_says_how_to_make_one(refusal: Refusal, tmp_path: Path) -> None:
    Registry.create(tmp_path / "empty.db").close()
    line = refusal("route", COOKING, "--registry", tmp_path / "empty.db")
    assert "no profile yet" in line
    assert "traitroute profile" in line


def test_a_locked_registry_ends_with_code_one(
    run: Run, profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.1)
    path = shutil.copy(profiled, tmp_path / "traitroute.db")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    ended = run("route", COOKING, "--registry", path)
    holder.close()
    assert ended.returncode == 1
    assert "it is locked by another process (database is locked): try again" in ended.stderr


def test_a_password_with_an_at_sign_is_not_shown(run: Run) -> None:
    ended = run("route", COOKING, "--registry", "postgresql://u:p@hush@h/db")
    assert ended.returncode == 2
    assert "%40" in ended.stderr and "hush" not in ended.stderr
