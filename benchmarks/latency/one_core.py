"""Keep a benchmark to one core and one thread, and say which processor that is."""

import os
import platform
import sys
from pathlib import Path

ONE_CORE = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
} | {"TOKENIZERS_PARALLELISM": "false"}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def keep_to_one_core() -> None:
    """Start again with one thread, which libraries read as they load, and stay on one core."""
    if any(os.environ.get(name) != value for name, value in ONE_CORE.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | ONE_CORE)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
