"""What a request may ask of its routing, in headers or in the body's `traitroute` object; headers win.

    x-traitroute-allow: a, b        {"allow": ["a", "b"]}    only these adapters (or base)
    x-traitroute-deny: a            {"deny": ["a"]}          none of these
    x-traitroute-tags: legal, de    {"tags": ["legal"]}      only adapters with all of these tags
    x-traitroute-min-gain: 0.1      {"min_gain": 0.1}        base, unless surely this much is gained
    x-traitroute-explain: 1         {"explain": true}        the whole decision
    x-traitroute-session: KEY       {"session": "KEY"}       the adapter of the session's first decision
    x-traitroute-reroute: 1         {"reroute": true}        decide anew, from the last user turn

A misspelt constraint would be broken unseen, so whatever is not understood is refused.
"""

import reprlib
from collections.abc import Callable, Collection
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers

from ...adapters.neighbours import hint
from .refusal import RefusedError

KEY = "traitroute"
PREFIX = "x-traitroute-"
_NOT_CONSTRAINTS = frozenset({"model"})

_Names = Annotated[list[str], Field(max_length=1000)]


class Limits(BaseModel):
    """Which adapters may answer, and how sure they must be to help."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    allow: _Names | None = None
    deny: _Names = []
    tags: _Names = []
    min_gain: Annotated[float, Field(ge=-1, le=1)] | None = None

    @property
    def limits_adapters(self) -> bool:
        """Whether the request limits which adapters may answer."""
        return self.allow is not None or bool(self.deny or self.tags)

    def admits(self, adapter: str, tags: Collection[str]) -> bool:
        """Whether an adapter with these tags may answer."""
        return (
            (self.allow is None or adapter in self.allow)
            and adapter not in self.deny
            and all(tag in tags for tag in self.tags)
        )

    def check_names(self, known: Collection[str], *, where: str = KEY) -> None:
        """Check that adapters named here are `known`; `where` is the part of the body that holds these limits.

        Raises:
            RefusedError: one is not.
        """
        # A server that has not read its registry knows no names, and cannot say that one is wrong.
        for field, names in (("allow", self.allow or []), ("deny", self.deny)) if known else ():
            for name in names:
                if name not in known:
                    raise _unknown_adapter(f"{where}.{field}", name, known)


class Constraints(Limits):
    """What one request asks of its routing; `session` is a key of the caller's own making."""

    explain: bool = False
    session: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    reroute: bool = False

    @classmethod
    def of(cls, headers: Headers, body: Any, *, known: Collection[str]) -> Self:
        """Read a request's constraints; `body` is its `traitroute` object, `known` all adapters' names.

        Raises:
            RefusedError: a constraint is unknown, of a wrong type, or names an adapter that is not known.
        """
        if body is not None and not isinstance(body, dict):
            raise RefusedError(
                f'"{KEY}" was {reprlib.repr(body)}, but must be an object of constraints, as in '
                f'{{"{KEY}": {{"allow": ["NAME"]}}}}',
                param=KEY,
            )
        given = {**(body or {}), **_from_headers(headers)}
        if not given:
            return cls()
        try:
            constraints = cls.model_validate(given)
        except ValidationError as exc:
            raise _refusal(exc) from exc
        constraints.check_names(known)
        return constraints


def _boolean(text: str) -> bool | str:
    known = {"1": True, "true": True, "0": False, "false": False}
    return known.get(text.strip().lower(), text)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


_READERS: dict[str, Callable[[str], Any]] = {
    "allow": _names,
    "deny": _names,
    "tags": _names,
    "min_gain": _number,
    "explain": _boolean,
    "session": str,
    "reroute": _boolean,
}
_WANTED = {
    "allow": "a list of adapters' names (in a header: separated by commas)",
    "deny": "a list of adapters' names (in a header: separated by commas)",
    "tags": "a list of adapters' tags (in a header: separated by commas)",
    "min_gain": "a number from -1 to 1, in score points",
    "explain": "true or false (in a header: 1 or 0)",
    "session": "a key of 1 to 256 characters",
    "reroute": "true or false (in a header: 1 or 0)",
}


def _from_headers(headers: Headers) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in dict.fromkeys(headers.keys()):
        key = name.removeprefix(PREFIX)
        if key == name or key in _NOT_CONSTRAINTS:
            continue
        field = key.replace("-", "_")
        read = _READERS.get(field)
        if read is None:
            known = ", ".join(f"{PREFIX}{each.replace('_', '-')}" for each in _READERS)
            raise RefusedError(
                f"no header {reprlib.repr(name)} is known: send {known}, or leave it out"
            )
        given[field] = read(", ".join(headers.getlist(name)))
    return given


def _refusal(error: ValidationError) -> RefusedError:
    """Say what was given, what was wanted, and the cure, of the first fault."""
    fault = error.errors(include_url=False, include_context=False)[0]
    field = str(fault["loc"][0]) if fault["loc"] else ""
    if field not in _WANTED:
        return RefusedError(
            f'"{KEY}" has no constraint {reprlib.repr(field)}: use {", ".join(_WANTED)}, or leave it out',
            param=KEY,
        )
    return RefusedError(
        f"{KEY}.{field} was {reprlib.repr(fault['input'])}, but must be {_WANTED[field]}: "
        "mend it, or leave it out",
        param=f"{KEY}.{field}",
    )


def _unknown_adapter(part: str, name: str, known: Collection[str]) -> RefusedError:
    return RefusedError(
        f"{part} names {reprlib.repr(name)}, which is no adapter of this server{hint(name, known)}",
        param=part,
    )
