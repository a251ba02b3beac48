"""`traitroute tenants`: keys are shown once, and the file is written whole or not at all."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from traitroute.serving.http.tenants import key_hash, read_tenants

Run = Callable[..., subprocess.CompletedProcess[str]]
SHOWN = re.compile(r"shown this once: (tr-[\w-]{43})")


def test_a_tenant_is_added_with_a_key_that_is_shown_and_not_kept(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text("# whom we serve\n[tenants.ops]\nadapters = ['*']\n")
    file.chmod(0o640)
    ended = run("tenants", "add", "kitchen", "--file", str(file), "--adapter", "chef", "--tag", "cooking")
    assert ended.returncode == 0, ended.stderr
    [key] = SHOWN.findall(ended.stdout)
    assert key not in file.read_text() and file.read_text().startswith("# whom we serve")
    kitchen = read_tenants(file.read_text())["kitchen"]
    assert (kitchen.keys, kitchen.adapters, kitchen.tags) == ((key_hash(key),), {"chef"}, {"cooking"})
    assert file.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["tenants.toml"]


def test_the_first_tenant_makes_the_file_for_its_owner_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    assert run("tenants", "add", "a", "--file", str(file)).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert not read_tenants(file.read_text())["a"].may_use("chef")


@pytest.mark.parametrize("name", ["kitchen", 'a"b', "a b", ""])
def test_what_no_server_would_read_is_not_written(run: Run, tmp_path: Path, name: str) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text("[tenants.kitchen]\nadapters = []\n")
    ended = run("tenants", "add", name, "--file", str(file))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert file.read_text() == "[tenants.kitchen]\nadapters = []\n"


def test_check_says_what_each_may_use_and_warns_of_what_is_not_there(run: Run, tmp_path: Path, profiled: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(
        '[tenants.kitchen]\nadapters = ["cook", "cok"]\ntags = ["spicy"]\nrate = "9/minute"\n'
        '[tenants.ops]\nadapters = ["*"]\n[tenants.guests]\nadapters = []\n'
    )
    ended = run("tenants", "check", "--file", str(file), "--registry", str(profiled))
    assert ended.returncode == 0, ended.stderr
    for said in ("cook", "9/minute", "every adapter", "base alone", "no adapter 'cok'", "no adapter is tagged 'spicy'"):
        assert said in ended.stdout
    file.write_text("[tenants.kitchen]\n")
    ended = run("tenants", "check", "--file", str(file), "--registry", str(profiled))
    assert ended.returncode == 2 and "says nothing of what it may use" in ended.stderr


def test_a_key_is_made_with_its_hash(run: Run) -> None:
    told = run("tenants", "key").stdout
    [key] = SHOWN.findall(told)
    assert key_hash(key) in told
