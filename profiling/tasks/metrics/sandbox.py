"""Run Python that a model wrote, where it can harm nothing: bubblewrap, a process and a moment for each program.

inside                     how
no network, no processes   namespaces of its own (bubblewrap)
no files of yours          it sees the system's libraries and Python, read-only, and 16 MB that are thrown away
no rights                  no capabilities, no new privileges; as root it becomes "nobody" before it runs anything
one process, one thread    RLIMIT_NPROC
time, memory, output       RLIMIT_CPU, RLIMIT_AS, RLIMIT_FSIZE; killed after four times the seconds on the clock

A program proves each test that passed with a secret word, so that leaving early passes nothing. It could find that word
by searching the interpreter it runs in: this keeps accidents out, not a model that has studied this file.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from ....adapters import MetricError

SCRATCH = 16 * 2**20
"""Bytes of memory that files may take."""
OUTPUT = 64 * 2**10
"""Bytes of any one file, and of the list of tests that passed."""
_NOBODY = 65534
_STARTED, _COMPILED = "started", "compiled"
_RUNNER = f"""
import json, os, resource, sys
given = json.load(sys.stdin)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({_NOBODY})
    os.setuid({_NOBODY})
for limit, most in (
    (resource.RLIMIT_CPU, given["seconds"]),
    (resource.RLIMIT_AS, given["memory"]),
    (resource.RLIMIT_FSIZE, {OUTPUT}),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_NPROC, 0),
):
    resource.setrlimit(limit, (most, most))
passed = os.dup(1)
nothing = os.open("/dev/null", os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
os.write(passed, b"{_STARTED}\\n")
def run(given, passed, scope):
    try:
        code = compile(given["code"], "answer", "exec")
        os.write(passed, b"{_COMPILED}\\n")
        exec(code, scope)
    except BaseException:
        return
    for number, test in enumerate(given["tests"]):
        try:
            exec(compile(test, "test", "exec"), scope)
        except BaseException:
            continue
        os.write(passed, f"{{given['word']}} {{number}}\\n".encode())
run(given, passed, {{"__name__": "__main__"}})
os._exit(0)
"""


@dataclass(frozen=True)
class Limits:
    """What a program may take: `seconds` of processor time, and bytes of `memory`."""

    seconds: int = 5
    memory: int = 512 * 2**20


@dataclass(frozen=True)
class Verdict:
    """Whether a program is Python, and how many of its tests passed."""

    compiled: bool
    passed: int


def run_tests(code: str, tests: Sequence[str], limits: Limits) -> Verdict:
    """Run `code` and then each of `tests`, all of them Python, in one interpreter.

    Raises:
        MetricError: there is no sandbox on this machine, with the reason.
    """
    if (reason := unavailable()) is not None:
        raise MetricError(reason)
    return _run(code, tests, limits)


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """Why nothing can be run here, or None where it can; tried once, with a program that passes one test of two."""
    if sys.platform != "linux" or not shutil.which("bwrap"):
        return (
            "running a model's code needs Linux and bubblewrap, and there is none here, so it is not run: "
            "apt-get install bubblewrap"
        )
    try:
        tried = _run("import math; x = 1", ["assert x == 1", "assert x == 2"], Limits())
    except MetricError as exc:
        return str(exc)
    return (
        None if tried.passed == 1 else "the sandbox does not tell right from wrong on this machine, so no code is run"
    )


def _run(code: str, tests: Sequence[str], limits: Limits) -> Verdict:
    word = secrets.token_hex(16)
    given = {"code": code, "tests": list(tests), "word": word, "seconds": limits.seconds, "memory": limits.memory}
    with tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(_command(), stdin=subprocess.PIPE, stdout=result, stderr=errors)
        try:
            process.communicate(json.dumps(given).encode(), timeout=4 * limits.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        lines = _text(result).splitlines()
        if lines[:1] != [_STARTED]:
            said = _text(errors).strip().splitlines() or [f"exit code {process.returncode}"]
            raise MetricError(
                f"the sandbox does not start, so no code is run: {said[-1][:200]}; in a container, it must be "
                "allowed to make namespaces"
            )
    passed = set(lines) & {f"{word} {number}" for number in range(len(tests))}
    return Verdict(lines[1:2] == [_COMPILED], len(passed))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(OUTPUT).decode(errors="replace")


def _command() -> list[str]:
    root = os.geteuid() == 0
    # Root needs no namespace for users, and may give up being root inside; nobody else is more than himself anyway.
    who = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user", "--disable-userns"]
    return [
        *("bwrap", *who, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"),
        *_system(),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(SCRATCH), "--tmpfs", "/tmp"),
        *("--chdir", "/tmp", "--remount-ro", "/"),
        *(sys._base_executable, "-I", "-S", "-c", _RUNNER),  # pyright: ignore[reportAttributeAccessIssue]
    ]


def _system() -> list[str]:
    """The parts of the file system that Python needs, at their places, read-only."""
    shown = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in map(Path, ("/bin", "/lib", "/lib64")):
        if folder.is_symlink():
            shown += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            shown += ["--ro-bind", str(folder), str(folder)]
    prefix = Path(sys.base_prefix)
    if prefix.is_relative_to("/usr"):
        return shown
    # Folders that bubblewrap makes on the way are its own alone, and "nobody" must pass.
    passed = [part for folder in reversed(prefix.parents[:-1]) for part in ("--perms", "0755", "--dir", str(folder))]
    return [*shown, *passed, "--ro-bind", str(prefix), str(prefix)]
