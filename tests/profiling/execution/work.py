"""Small jobs, in a module of their own, since processes import what they do."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import save_file
from traitroute.adapters import RefusalError, SuiteError
from traitroute.profiling.execution.executor import Report, UnfitMachineError
from traitroute.profiling.execution.terms import Terms


@dataclass(frozen=True)
class Work:
    """Does what `what` says; its result is its process and how many threads that may use."""

    what: str
    folder: Path
    memory: int = 0
    size: float = 1.0
    whole_gpu: bool = False
    terms: Terms | None = None

    @property
    def name(self) -> str:
        return f"work {self.what}"

    def here(self) -> Self:
        if "TEST_UNFIT" in os.environ:
            raise UnfitMachineError("it computes otherwise")
        return self if self.terms is None else replace(self, terms=self.terms.here())

    def run(self, report: Report) -> tuple[int, str]:
        report(0.5)
        (self.folder / f"{os.getpid()}").touch()
        if self.what == "refuse":
            raise SuiteError("the rows are not as they should be")
        if self.what == "server":
            raise RefusalError("the server refuses", status=400)
        if self.what == "slip":
            raise KeyError("a slip of ours")
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "wait once" and len(list(self.folder.iterdir())) == 1:
            time.sleep(600)
        if self.what == "wait":
            time.sleep(600)
        if self.what == "meet":
            # Only where two processes work at the same time.
            until = time.monotonic() + 300
            while len(list(self.folder.iterdir())) < 2 and time.monotonic() < until:
                time.sleep(0.02)
        return os.getpid(), os.environ["OMP_NUM_THREADS"]


def write_base(folder: Path, *, fill: float) -> Path:
    """Write what has the form of a base model, with weights of one value."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    save_file({"w": np.full(4, fill, np.float32)}, folder / "model.safetensors")
    return folder
