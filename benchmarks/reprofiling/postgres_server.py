"""A PostgreSQL server of Debian's programs in a scratch folder, to be killed and started again: for benchmarks and
tests.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path("/usr/lib/postgresql")
START_LIMIT_S = 60.0
_IN_MEMORY = ("fsync=off", "full_page_writes=off")


@dataclass
class PostgresServer:
    """The server in `folder`, reached through a socket there; what is not `durable` is quicker, and ends tidily."""

    programs: Path
    folder: Path
    durable: bool = True
    process: "subprocess.Popen[bytes] | None" = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql+psycopg://tester@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        import psycopg

        name = f"db{next(self._numbers)}"
        address = f"postgresql://tester@/postgres?host={self.folder}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def make(self) -> None:
        """Make its files."""
        if user := _user():
            shutil.chown(self.folder, user, user)
        initdb = [self.programs / "initdb", "-D", self.folder / "data", "-U", "tester"]
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*initdb, *options], check=True, capture_output=True, user=_user())

    def start(self) -> None:
        """Start it, and return once it answers.

        Raises:
            TimeoutError: it does not.
        """
        import psycopg

        settings = ["listen_addresses=", "max_connections=200"]
        settings += () if self.durable else _IN_MEMORY
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        options = [part for setting in settings for part in ("-c", setting)]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, user=_user(), start_new_session=True
            )
        until = time.monotonic() + START_LIMIT_S
        while self.process.poll() is None and time.monotonic() < until:
            try:
                psycopg.connect(host=str(self.folder), user="tester", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise TimeoutError("PostgreSQL did not start")

    def kill(self) -> None:
        """End it at once: a durable one with all its processes by SIGKILL, as when its machine fails."""
        if self.process is None:
            return
        if self.durable:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            # SIGKILL would leave its shared memory behind.
            self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        self.process = None


@contextmanager
def postgres_server(*, durable: bool = True) -> Iterator[PostgresServer]:
    """A new server, for as long as the block lasts.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    found = sorted(PROGRAMS.glob("*/bin/initdb"))
    if not found:
        raise FileNotFoundError("no PostgreSQL server here: apt-get install postgresql")
    # A socket's path may have 107 characters at most, so it is not made in a test's own folder.
    with tempfile.TemporaryDirectory(prefix="pg-") as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "server"
        folder.mkdir()
        server = PostgresServer(found[-1].parent, folder, durable)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _user() -> str | None:
    """The server refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None
