"""An analysis that cannot be made, and why: a report says so in its place and goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ...adapters import InputError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Missing:
    """Why an analysis is left out, in one sentence."""

    reason: str


def attempt(find: Callable[[], Found]) -> Found | Missing:
    """What `find` returns, or why it cannot: data, model or library that is not there."""
    try:
        return find()
    except (InputError, ImportError, OSError) as exc:
        return Missing(" ".join(str(exc).split()))
