"""The house: imports run one way, the light core stays light, and the wheel holds what it should."""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "adapters": {"adapters"},
    "router": {"router", "adapters"},
    "serving": {"serving", "router", "adapters"},
    "profiling": {"profiling", "serving", "router", "adapters", "suites"},
    "suites": {"suites"},
    "cli": {"cli", "profiling", "serving", "router", "adapters", "suites"},
}
FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "serving": (
        ("http",),
        ("engines",),
        ("judge",),
        ("canaries", "constraints", "experiment", "measured", "slots", "timeouts"),
        ("profile_snapshot",),
        ("snapshot",),
        ("proof",),
        ("loading",),
        ("state",),
        ("middleware",),
        ("traffic",),
        ("watcher",),
        ("skills",),
        ("admin", "jobs", "lift", "mcp", "page"),
        ("api_routes",),
        ("embedded", "gateway", "vllm"),
        ("doctor", "envoy", "ray"),
    ),
    "profiling": (
        ("gguf_model",),
        ("base_model",),
        ("execution",),
        ("tasks",),
        ("training", "traits"),
        ("matrix",),
        ("row_lengths", "study", "statistics"),
        ("analysis",),
        ("fit", "forecast", "given", "served"),
        ("judge_trial", "referees"),
        ("column", "composites", "kind_admission", "profile", "recurring", "replay", "twins", "versions"),
        ("jobs", "scout", "smoke"),
        ("report",),
    ),
}
"""The folders and modules inside a top folder, from the bottom up; each imports from lower floors only."""
HEAVY = ("torch", "vllm", "spacy", "transformers", "peft", "datasets")


def imports_of_ours(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and path of every import of ours in `file`, wherever in the file it stands."""
    package = ["traitroute", *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for name in imported_names(node, package):
            parts = name.split(".")
            if parts[0] == "traitroute" and len(parts) > 1:
                yield getattr(node, "lineno", 0), parts[1:]


def parts_imported(file: Path, room: str) -> Iterator[tuple[int, str]]:
    """Line and first part below `room` of every import of it in `file`."""
    for line, (other, *path) in imports_of_ours(file):
        if other == room and path and ((ROOT / room / path[0]).is_dir() or (ROOT / room / f"{path[0]}.py").is_file()):
            yield line, path[0]


def imported_names(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        start = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*start, *([node.module] if node.module else [])])
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize("room", BELOW)
def test_imports_run_down_only(room: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {other}"
        for file in sorted((ROOT / room).rglob("*.py"))
        for line, (other, *_) in imports_of_ours(file)
        if other not in BELOW[room]
    ]
    assert wrong == []


@pytest.mark.parametrize("room", FLOORS)
def test_every_folder_and_module_stands_on_one_floor(room: str) -> None:
    inside = [p for p in (ROOT / room).iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    names = sorted(name for floor in FLOORS[room] for name in floor)
    assert names == sorted(p.stem for p in inside if p.stem != "__init__")


@pytest.mark.parametrize("room", FLOORS)
def test_imports_inside_a_folder_run_down_only(room: str) -> None:
    height = {name: i for i, floor in enumerate(FLOORS[room]) for name in floor}
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {part}"
        for file in sorted((ROOT / room).rglob("*.py"))
        if file != ROOT / room / "__init__.py"
        for own in [file.relative_to(ROOT / room).parts[0].removesuffix(".py")]
        for line, part in parts_imported(file, room)
        if part != own and height[part] >= height[own]
    ]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("package", ["adapters", "router", "serving", "profiling"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, traitroute.{package}; print(*(m for m in {HEAVY} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_every_package_is_listed_for_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {"traitroute"} | {
        ".".join(["traitroute", *init.parent.relative_to(ROOT).parts])
        for room in BELOW
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == found


@pytest.mark.slow
def test_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("build")
    copy_project(tmp_path / "project")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    run = subprocess.run([*command, tmp_path / "project"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    [wheel] = tmp_path.glob("*.whl")
    names = ZipFile(wheel).namelist()
    shipped = {f"traitroute/{f.relative_to(ROOT)}" for f in (ROOT / "suites").rglob("*.*l")}
    assert {"traitroute/py.typed", "traitroute/router/meaning.safetensors", *shipped} <= set(names)
    assert "traitroute/suites/mini/toxicity/train.jsonl" in shipped
    assert {n.split("/")[0] for n in names} == {
        "traitroute",
        f"{wheel.name.split('-py3')[0]}.dist-info",
    }
    assert {n.split("/")[1] for n in names if n.startswith("traitroute/")} == {
        *BELOW,
        "__init__.py",
        "py.typed",
    }


def copy_project(target: Path) -> None:
    """Copy what git would ship: tracked files, and new ones that it does not ignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
