"""What all machines of a run must have in common, so that whichever does a job makes the same of it."""

import os
import platform
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

from ...adapters import BaseModelError, Location, Registry, WeightsError, WeightStore
from ...serving.engines.local_model import VARIABLE, Precision, fastest_precision
from ..base_model import BaseModelFolder, open_base_model
from .executor import UnfitMachineError


@dataclass(frozen=True)
class Terms:
    """A run's base model, its precision, and where its registry and the weights are; `machine` is that of the run."""

    base: BaseModelFolder
    precision: Precision
    registry: Location
    weights: Path
    author: str
    machine: str

    @classmethod
    def of(cls, base: BaseModelFolder, registry: Registry) -> Self:
        """The terms of a run on this machine."""
        place, weights = registry.location, registry.weights.root.absolute()
        return cls(base, fastest_precision(), place, weights, registry.author, machine_name())

    def here(self) -> Self:
        """The terms with the base model as it lies on this machine.

        Raises:
            UnfitMachineError: this machine has another precision or base model, or cannot keep what it makes.
        """
        if (own := fastest_precision()) != self.precision:
            raise UnfitMachineError(
                f"it computes in {own} and this run in {self.precision}, which would be two matrices in one: set "
                f"{VARIABLE}={self.precision} for all machines, or leave this one out"
            )
        if self.registry.path is not None and machine_name() != self.machine:
            raise UnfitMachineError(
                f"the registry is a file of {self.machine}: several machines need one in PostgreSQL (--registry "
                "postgresql+psycopg://…), with TRAITROUTE_WEIGHTS and --runs in folders that all share"
            )
        if not self.weights.is_dir():
            raise UnfitMachineError(f"it has no weight store {self.weights}: mount the folder that all share")
        base = _base_here(self.base.name)
        if base.digest != self.base.digest:
            raise UnfitMachineError(
                f"{self.base.name} has digest {base.digest[:12]} there, and {self.base.digest[:12]} in this run: it is "
                "another model, or another version of it"
            )
        return replace(self, base=replace(base, room=self.base.room))

    def store(self) -> WeightStore:
        """The store of the adapters' weights."""
        return WeightStore(self.weights)

    def check_weights(self, digest: str) -> None:
        """Check that this machine sees weights that the run has stored.

        Raises:
            UnfitMachineError: it does not.
        """
        try:
            _ = self.store().path(digest)
        except WeightsError as exc:
            raise UnfitMachineError(f"it does not see the run's weight store: {exc}") from exc

    def open(self) -> Registry:
        """Open the registry."""
        return Registry.open(self.registry, weights=self.weights, author=self.author)


def machine_name() -> str:
    """The name by which machines are told apart."""
    return platform.node() or os.environ.get("HOSTNAME", "this machine")


@lru_cache(maxsize=1)
def _base_here(name: str) -> BaseModelFolder:
    try:
        return open_base_model(name)
    except BaseModelError as exc:
        raise UnfitMachineError(f"it has no base model: {exc}") from exc
