"""One embedded server with SmolLM2 and a skill that was really trained and measured, for all examples."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..servers import running_traitroute

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / ".venv-agents" / "bin" / "python"
KEY = "a key for the examples"


@pytest.fixture(scope="session")
def server(real_run: Path) -> Iterator[dict[str, str]]:
    """`traitroute serve --engine transformers` behind a key: the environment variables of those who ask it."""
    command = ["serve", "--engine", "transformers", "--registry", str(real_run), "--api-key-env", "A_KEY"]
    with running_traitroute(command, real_run.with_name("server.log"), {"A_KEY": KEY}) as running:
        yield {"OPENAI_BASE_URL": f"{running.base_url}/v1", "OPENAI_API_KEY": KEY}


@pytest.fixture
def run_example(server: dict[str, str]) -> Callable[..., str]:
    """Run an example against the server, and return what it printed."""
    if not AGENTS.is_file():
        pytest.skip("needs the agents' libraries: make examples")

    def run(name: str, *arguments: str) -> str:
        command = [str(AGENTS), str(ROOT / "examples" / name), *arguments]
        done = subprocess.run(command, env=os.environ | server, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
