"""What a step of a job tells: JSON, since DBOS keeps it, and no exceptions, since each kind of trouble has its own way on."""

from collections.abc import Callable
from typing import Any

from ...adapters import (
    DatabaseError,
    InputError,
    RefusalError,
    RegistryError,
    ServerError,
    SilentAdapterError,
)

Told = dict[str, Any]

_NOT_THE_ADAPTERS_FAULT = frozenset({401, 403, 404})
"""The worker's key is wrong, or the server does not know the name (any more, or yet: it was started anew)."""


class WithdrawnError(InputError):
    """The adapter was removed, replaced or disabled while its job ran."""


def told(step: Callable[[], Told], *, of_adapter: bool) -> Told:
    """Do `step` and tell what came of it, or one of `away`, `refused`, `withdrawn` with the reason.

    Raises:
        InputError: nothing that waiting or disabling the adapter would mend.
    """
    try:
        return step()
    except WithdrawnError as exc:
        return {"withdrawn": str(exc)}
    except SilentAdapterError as exc:
        return {"refused": str(exc)}
    except RefusalError as exc:
        if exc.status in _NOT_THE_ADAPTERS_FAULT:
            return {"away": str(exc)}
        if not of_adapter:
            raise InputError(f"the server refuses the base model's requests: {exc}") from exc
        return {"refused": str(exc)}
    except (ServerError, DatabaseError, RegistryError) as exc:
        return {"away": str(exc)}
