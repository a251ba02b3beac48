"""Install the Debian packages that some tests drive: a browser, a PostgreSQL server, and bubblewrap.

    python scripts/system_packages.py     what `make test` calls; does nothing where all are there

Where this cannot be done (no Debian, or not root) it says so, and the tests that need them skip with that reason.
"""

import os
import shutil
import subprocess
from pathlib import Path

POSTGRESQL = "/usr/lib/postgresql"
"""Debian keeps the server's programs in `<version>/bin` below this, out of the path."""


def main() -> None:
    """Install what is missing."""
    missing = []
    if not shutil.which("chromium"):
        missing.append("chromium")
    if not list(Path(POSTGRESQL).glob("*/bin/initdb")):
        missing.append("postgresql")
    if not shutil.which("bwrap"):
        missing.append("bubblewrap")
    if not missing:
        return
    wanted = " ".join(missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"note: without {wanted} some tests skip: sudo apt-get install {wanted}", flush=True)
        return
    print(f"installing {wanted} for the tests", flush=True)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # The list of packages may be missing, or older than what is offered.
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=quiet, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"note: apt-get failed, so some tests skip: {done.stderr.strip()[-300:]}", flush=True)


if __name__ == "__main__":
    main()
