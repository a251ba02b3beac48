"""A PostgreSQL server of the system's own programs in a scratch folder, to be killed and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

PROGRAMS = Path("/usr/lib/postgresql")
START_LIMIT_S = 60.0


@dataclass
class DatabaseServer:
    """The server in `folder`, reached through a socket there."""

    programs: Path
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """The database's URL."""
        return f"postgresql+psycopg://tester@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and return once it answers."""
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        options = ["-c", "listen_addresses=", "-c", "max_connections=200"]
        with (self.folder.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, user=_user(), start_new_session=True
            )
        until = time.monotonic() + START_LIMIT_S
        while time.monotonic() < until:
            try:
                psycopg.connect(host=str(self.folder), user="tester", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise TimeoutError("PostgreSQL did not start")

    def kill(self) -> None:
        """SIGKILL to all of its processes, as when its machine fails."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def database_server() -> Iterator[DatabaseServer]:
    """A new server, for as long as the block lasts; it writes to disk as it would anywhere."""
    programs = sorted(PROGRAMS.glob("*/bin/initdb"))[-1].parent
    # A socket's path may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="pg-") as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "server"
        folder.mkdir()
        if user := _user():
            shutil.chown(folder, user, user)
        initdb = [programs / "initdb", "-D", folder / "data", "-U", "tester", "--auth=trust"]
        subprocess.run(initdb, check=True, capture_output=True, user=_user())
        server = DatabaseServer(programs, folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _user() -> str | None:
    """The server refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None
