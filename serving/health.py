"""How a server stands with its registry: whether it can be read, and how old is what was read."""

import time
from dataclasses import dataclass, field
from typing import TypedDict

from .middleware.metrics import open_metrics


class HealthReport(TypedDict):
    """What `/health` says of the registry; `age_s` is null until it was read once."""

    reachable: bool
    age_s: float | None


@dataclass
class RegistryHealth:
    """While the registry is away the server goes on with what it read last, and says so here and in its metrics."""

    reachable: bool = False
    _confirmed: float | None = field(default=None, repr=False)

    def confirm(self) -> None:
        """What the server goes by is the registry's newest, as of now."""
        self.reachable, self._confirmed = True, time.monotonic()
        open_metrics().registry(reachable=True)

    def lose(self) -> None:
        """The registry could not be read just now."""
        self.reachable = False
        open_metrics().registry(reachable=False)

    @property
    def age_s(self) -> float | None:
        """Seconds since what the server goes by was known to be the newest."""
        return None if self._confirmed is None else time.monotonic() - self._confirmed

    def report(self) -> HealthReport:
        """The same as JSON."""
        age = None if self.age_s is None else round(self.age_s, 1)
        return {"reachable": self.reachable, "age_s": age}
