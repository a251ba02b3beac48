"""Keys come from environment variables: a command line is seen by everybody on the machine."""

import os

from ..adapters import InputError


def secret(option: str, variable: str | None) -> str | None:
    """The key in the environment variable that `option` names; None where none was named.

    Raises:
        InputError: it is not set, or could not stand in a header.
    """
    if variable is None:
        return None
    if not (value := os.environ.get(variable)):
        raise InputError(f"{option} {variable}: no such environment variable is set: export it first")
    if not (value.isascii() and value.isprintable()):
        raise InputError(f"{option} {variable}: a key is printable ASCII text on one line")
    return value
