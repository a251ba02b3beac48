"""Every error this project raises on purpose, in one small tree.

    TraitRouteError
    ├── InputError            the user can mend it: exit code 2 in the CLI, 4xx over HTTP
    │   ├── SuiteError        a suite, task or data row is not as it should be
    │   ├── SourceError       a place that weights come from is not allowed, or cannot be read
    │   ├── WeightsError      adapter weights refused: pickle, truncated, wrong base, unsupported
    │   ├── RegistryError     not a registry, a newer schema, what it does not hold
    │   │   ├── UnknownNameError  it holds nothing of that name
    │   │   ├── ConflictError   somebody else changed it first: read again and repeat
    │   │   └── TooManyError    so much at a time is not taken: come again later
    │   └── BaseModelError    the base model cannot be found or loaded
    └── RunError              the run went wrong: exit code 1 in the CLI
        ├── DatabaseError     a registry's database cannot be reached, read or written
        │   └── BusyError       locked or away: the same may work when it is tried again
        ├── SilentAdapterError  an adapter answered exactly as the base model does on every example
        └── ServerError         a model server did not start, answer or stop
            └── RefusalError    it answered, and refused the request: asking again does not help

A message says what was given, what was wanted, and the cure.
"""


class TraitRouteError(Exception):
    """Root of every error raised on purpose."""


class InputError(TraitRouteError):
    """Something given by the user is wrong and the user can mend it."""


class SuiteError(InputError):
    """A suite, task or data row is not as it should be."""


class SourceError(InputError):
    """Weights may not come from a place, or cannot be read there."""


class WeightsError(InputError):
    """Adapter weights are refused."""


class RegistryError(InputError):
    """A registry cannot be opened, or does not hold what was asked for."""


class UnknownNameError(RegistryError):
    """A registry holds nothing of the name that was asked for."""


class ConflictError(RegistryError):
    """What was to be changed is no longer as it was read: read it again and repeat."""


class TooManyError(RegistryError):
    """More was given at a time than is taken; the rest may come in `wait_s` seconds."""

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
