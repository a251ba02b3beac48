"""Every error this project raises on purpose, in one small tree.

    TraitRouteError
    ├── InputError            the user can mend it: exit code 2 in the CLI, 4xx over HTTP
    │   ├── SuiteError        a suite, task or data row is not as it should be
    │   ├── MetricError       a metric failed, or cannot be used where it is asked for
    │   ├── SourceError       a place that weights come from is not allowed, or cannot be read
    │   ├── WeightsError      adapter weights refused: pickle, truncated, wrong base, unsupported
    │   ├── RegistryError     not a registry, a newer schema, something it does not hold
    │   │   ├── UnknownNameError  it holds nothing of that name
    │   │   ├── ConflictError   somebody else changed it first: read again and repeat
    │   │   └── TooManyError    a rate limit is exceeded: try again later
    │   └── BaseModelError    the base model cannot be found or loaded
    └── RunError              the run went wrong: exit code 1 in the CLI
        ├── DatabaseError     a registry's database cannot be reached, read or written
        │   └── BusyError       locked or away: the same may work when it is tried again
        ├── SilentAdapterError  an adapter answered exactly as the base model does on every example
        └── ServerError         a model server did not start, answer or stop
            └── RefusalError    it answered, and refused the request: asking again does not help

A message says what was given, what was wanted, and the cure.
"""

import difflib
from collections.abc import Collection, Sequence

COMPARED = 500
"""An unknown name is compared with at most this many; comparing ten thousand takes a tenth of a second."""
LONGEST = 80
"""This many characters of a name are compared; no name is longer, and the time grows with the length."""
SHOWN = 20
PREFIX = 2


class TraitRouteError(Exception):
    """Root of every error raised on purpose."""


class InputError(TraitRouteError):
    """Something given by the user is wrong and the user can mend it."""


class SuiteError(InputError):
    """A suite, task or data row is not as it should be."""


class MetricError(InputError):
    """A task's metric failed, gave what is no score, or cannot be used."""


class SourceError(InputError):
    """Weights may not come from a place, or cannot be read there."""


class WeightsError(InputError):
    """Adapter weights are refused."""


class RegistryError(InputError):
    """A registry cannot be opened, or does not hold what was asked for."""


class UnknownNameError(RegistryError):
    """A registry holds nothing of the name that was asked for."""


class ConflictError(RegistryError):
    """Somebody else changed it first: read it again and repeat the change."""


class TooManyError(RegistryError):
    """A rate limit is exceeded; try again in `wait_s` seconds."""

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class BaseModelError(InputError):
    """A base model cannot be found or loaded."""


class RunError(TraitRouteError):
    """A run went wrong for a reason that no change of input mends."""


class DatabaseError(RunError):
    """A registry's database cannot be reached, read or written now."""


class BusyError(DatabaseError):
    """A registry's database is locked, full of connections or away: try again."""


class SilentAdapterError(RunError):
    """An adapter's outputs equal the base model's on every example: it was not applied."""


class ServerError(RunError):
    """A model server did not start, answer or stop."""


class RefusalError(ServerError):
    """A model server refused a request with `status`: asking again does not help."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Did-you-mean text for an unknown `name`: the end of a message, with the closest of `names` and the first few."""
    near = names if len(names) <= COMPARED else [n for n in names if n[:PREFIX] == name[:PREFIX]]
    return did_you_mean_among(name, sorted(near)[:COMPARED], shown=sorted(names)[:SHOWN], total=len(names))


def did_you_mean_among(name: str, similar: Sequence[str], *, shown: Sequence[str], total: int) -> str:
    """The same, from names that may be `similar`, the first few that are `shown`, and how many there are in all."""
    close = difflib.get_close_matches(name[:LONGEST], similar, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {total - len(shown)} more" if total > len(shown) else ""
    return f"{meant} Known: {', '.join(shown)}{more}"
