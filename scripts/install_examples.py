"""Make the environment in which the agents' examples run: `.venv-agents`, apart from ours and light.

    python scripts/install_examples.py     what `make test` calls; does nothing when up to date

The examples talk to a server over HTTP only, and the agents' libraries ask for other versions than those we
serve and compare with (websockets below 17, a langchain-core that semantic-router does not take).
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "examples.txt"
ENVIRONMENT = ROOT / ".venv-agents"
STAMP = ENVIRONMENT / "traitroute-installed"


def main() -> None:
    """Install what is missing; the stamp is written last."""
    state = f"{ROOT} {sys.version} {hashlib.sha256(PINS.read_bytes()).hexdigest()}"
    if STAMP.is_file() and STAMP.read_text() == state:
        return
    print("installing the agents' libraries for the examples", flush=True)
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    command += ["install", "-q", "--no-deps", "-r", str(PINS)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    STAMP.write_text(state)


if __name__ == "__main__":
    main()
