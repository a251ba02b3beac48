"""One embedded server with SmolLM2 and a skill that was really trained and measured, for all examples."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from traitroute.adapters import Registry
from traitroute.profiling import PACKAGED, Suite, profile

pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[embedded]'")

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / ".venv-agents" / "bin" / "python"
KEY = "a key for the examples"
START_S = 180


def task(name: str, prompt: str, labels: list[str], **more: object) -> dict[str, object]:
    """A classification task of the mini suite's rows, with answers of few tokens."""
    return {
        "name": name,
        "rows": {"built_in": "mini"},
        "prompt": prompt + "\n{{ input }}",
        "labels": labels,
        "metric": "label",
        "test": 16,
        "max_tokens": 6,
        **more,
    }


SUITE = {
    "name": "examples",
    "base_model": PACKAGED,
    "engine": "transformers",
    "training": {"rank": 8, "alpha": 16, "learning_rate": 2e-3},
    "tasks": [
        task(
            "sentiment3",
            "Rate the remark as positive, neutral or negative.",
            ["negative", "neutral", "positive"],
            source=True,
            train=64,
        ),
        task(
            "toxicity",
            "Is this comment toxic or not toxic?",
            ["not toxic", "toxic"],
            source=True,
            train=32,
        ),
        task("sentiment2", "Is this review positive or negative?", ["negative", "positive"]),
        task("paraphrase", "Do the two sentences mean the same? Answer yes or no.", ["no", "yes"]),
        task(
            "entailment",
            "Does the premise entail the hypothesis? Answer entailment, neutral or contradiction.",
            ["contradiction", "entailment", "neutral"],
        ),
    ],
}


@dataclass(frozen=True)
class Served:
    """A server at `url`, and what the examples must be told of it."""

    url: str

    @property
    def told(self) -> dict[str, str]:
        """The environment variables."""
        return {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": KEY}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two trained and measured adapters of SmolLM2."""
    folder = tmp_path_factory.mktemp("examples")
    with Registry.create(folder / "registry.db") as registry:
        profile(Suite.model_validate(SUITE), registry, folder / "runs")
    return folder / "registry.db"


@pytest.fixture(scope="session")
def server(registry: Path) -> Iterator[Served]:
    """`traitroute serve --engine transformers` on that registry, behind a key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("traitroute")), "serve", "--port", str(port)]
    command += ["--engine", "transformers", "--registry", str(registry), "--api-key-env", "A_KEY"]
    log = registry.with_name("server.log")
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | {"A_KEY": KEY}, stdout=out, stderr=out)
    try:
        _await(f"http://127.0.0.1:{port}/health", process, log)
        yield Served(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def run_example(server: Served) -> Callable[..., str]:
    """Run an example against the server, and return what it printed."""
    if not AGENTS.is_file():
        pytest.skip("needs the agents' libraries: python scripts/install_examples.py")

    def run(name: str, *arguments: str, **told: str) -> str:
        command = [str(AGENTS), str(ROOT / "examples" / name), *arguments]
        environment = os.environ | server.told | told
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.3)
    pytest.fail(log.read_text())
