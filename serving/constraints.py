"""What a request may ask of its routing, in headers or in the body's `traitroute` object.

    x-traitroute-allow: a, b        {"allow": ["a", "b"]}    only these adapters (or base)
    x-traitroute-deny: a            {"deny": ["a"]}          none of these
    x-traitroute-tags: legal, de    {"tags": ["legal"]}      only adapters with all of these tags
    x-traitroute-min-gain: 0.1      {"min_gain": 0.1}        base, unless surely this much is gained
    x-traitroute-explain: 1         {"explain": true}        the whole decision
    x-traitroute-session: KEY       {"session": "KEY"}       the adapter of the session's first decision
    x-traitroute-reroute: 1         {"reroute": true}        decide anew, from the last user turn

The first four add up over the body and every line of a header, so that nobody weakens what another asked for; of the
others a header wins. A misspelt constraint would have no effect, so whatever is not understood is refused.

The first three bind requests for an adapter by its name too, so that a proxy can enforce them by a header. Where they
hold, nothing is handed on that could name another adapter to the app behind: a body that is no JSON object, a model
that is no text, a spelling of `model` that some parsers accept, or a field by which some servers take an adapter.
"""

import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.types import Scope

from ..adapters.errors import did_you_mean
from .http.errors import RefusedError

KEY = "traitroute"
PREFIX = "x-traitroute-"
NOT_CONSTRAINTS = frozenset(
    PREFIX + name
    for name in (
        # What other parts of a request say, and what answers say, which some clients send back.
        *("model", "admin-key"),
        *("adapter", "gain", "reason", "profile", "arm", "propensity", "decision-token", "decision", "decision-id"),
    )
)
"""Headers of ours that ask nothing of routing."""

MAX_MODEL = 1024
"""How many characters a model's name may have: base models are named by paths, too."""

_ADAPTER_WORDS = ("adapter", "lora")
"""In the fields by which SGLang, LoRAX, TGI, TensorRT-LLM, llama.cpp, MLX and others take an adapter."""
_MORE_MODELS = frozenset({"fallbacks", "models"})
_SETTINGS = ("extra_body", "options", "parameters", "sampling_params")
"""Objects in a request whose fields some servers take as they take its own."""

# A name of 64 characters, and the version of a replacement.
_Name = Annotated[str, Field(max_length=80)]
_Names = Annotated[list[_Name], Field(max_length=1000)]


class Limits(BaseModel):
    """Which adapters may answer, and how sure they must be to help."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    allow: _Names | None = Field(default=None, description="Only these adapters, or the base model, may answer.")
    deny: _Names = Field(default=[], description="None of these adapters may answer.")
    tags: _Names = Field(default=[], description="Only adapters with all of these tags may answer.")
    min_gain: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="The base model answers unless an adapter surely gains more than this."
    )

    @property
    def limits_adapters(self) -> bool:
        """Whether the request limits which adapters may answer."""
        return self.allow is not None or bool(self.deny or self.tags)

    def broken_by(self, adapter: str, tags: Collection[str]) -> str | None:
        """Which constraint keeps an adapter with these tags from answering; None where it may.

        Who denies an adapter denies its replacements, NAME@VERSION, as well.
        """
        if self.allow is not None and adapter not in self.allow:
            return "allow"
        if adapter in self.deny or adapter.partition("@")[0] in self.deny:
            return "deny"
        return None if set(self.tags) <= set(tags) else "tags"

    def among(self, adapters: Iterable[str], tags: Callable[[str], Collection[str]]) -> frozenset[str]:
        """Those of `adapters` that may answer; `tags` says what an adapter is tagged with."""
        left = frozenset(adapters) - frozenset(self.deny)
        if self.allow is not None:
            left &= frozenset(self.allow)
        wanted = set(self.tags)
        return frozenset(name for name in left if wanted <= set(tags(name))) if wanted else left

    def check_names(self, known: Collection[str], *, part: str = f"{KEY}.") -> None:
        """Check that adapters named here are `known`; `part` is what precedes a constraint's name in the request.

        Raises:
            RefusedError: one is not.
        """
        # A server that has not read its registry knows no names, and cannot say that one is wrong.
        for field, names in (("allow", self.allow or []), ("deny", self.deny)) if known else ():
            for name in names:
                if name not in known:
                    raise _unknown_adapter(part + field, name, known)


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
        given = [cls._read(body, f"{KEY}.", known)] if body else []
        given += [cls._read(line, PREFIX, known) for line in _lines(headers)]
        return cls.model_construct(**_together(given)) if given else cls()

    @classmethod
    def _read(cls, given: Mapping[str, Any], part: str, known: Collection[str]) -> Self:
        try:
            constraints = cls.model_validate(given)
        except ValidationError as exc:
            raise _refusal(exc, part) from exc
        constraints.check_names(known, part=part)
        return constraints


def limits_adapters(scope: Scope) -> bool:
    """Whether a request's headers limit which adapters may answer."""
    return any(name.lower() in _LIMITING for name, _ in scope["headers"])


def _together(given: Iterable[Limits]) -> dict[str, Any]:
    """What holds where all of these are asked for."""
    held: dict[str, Any] = {}
    for each in given:
        for field in each.model_fields_set:
            value = getattr(each, field)
            if value is not None:
                held[field] = _JOINED[field](held[field], value) if field in held else value
    return held


def _both(some: list[str], others: list[str]) -> list[str]:
    kept = frozenset(others)
    return [name for name in some if name in kept]


def _latter(_: Any, value: Any) -> Any:
    return value


_JOINED: Mapping[str, Callable[[Any, Any], Any]] = {
    "allow": _both,
    "deny": list.__add__,
    "tags": list.__add__,
    "min_gain": max,
    "explain": _latter,
    "session": _latter,
    "reroute": _latter,
}


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
_FIELDS = {f"{PREFIX}{field.replace('_', '-')}": field for field in _READERS}
_LIMITING = frozenset(f"{PREFIX}{field}".encode() for field in ("allow", "deny", "tags"))
_WANTED = {
    "allow": "a list of adapters' names, of 80 characters at most (in a header: separated by commas)",
    "deny": "a list of adapters' names, of 80 characters at most (in a header: separated by commas)",
    "tags": "a list of adapters' tags, of 80 characters at most (in a header: separated by commas)",
    "min_gain": "a number from -1 to 1, in score points",
    "explain": "true or false (in a header: 1 or 0)",
    "session": "a key of 1 to 256 characters",
    "reroute": "true or false (in a header: 1 or 0)",
}


def _lines(headers: Headers) -> list[dict[str, Any]]:
    """The constraints of every header line."""
    given: list[dict[str, Any]] = []
    for name, value in headers.items():
        name = name.lower()
        if not name.startswith(PREFIX) or name in NOT_CONSTRAINTS:
            continue
        field = _FIELDS.get(name)
        if field is None:
            raise RefusedError(f"no header {reprlib.repr(name)} is known: send {', '.join(_FIELDS)}, or leave it out")
        given.append({field: _READERS[field](value)})
    return given


def _refusal(error: ValidationError, part: str) -> RefusedError:
    """Say what was given, what was wanted, and the cure, of the first fault."""
    fault = error.errors(include_url=False, include_context=False)[0]
    field = str(fault["loc"][0]) if fault["loc"] else ""
    if field not in _WANTED:
        return RefusedError(
            f'"{KEY}" has no constraint {reprlib.repr(field)}: use {", ".join(_WANTED)}, or leave it out', param=KEY
        )
    where = _where(part, field)
    return RefusedError(
        f"{where} was {reprlib.repr(fault['input'])}, but must be {_WANTED[field]}: mend it, or leave it out",
        param=where,
    )


def _where(part: str, field: str) -> str:
    return part + (field.replace("_", "-") if part == PREFIX else field)


def _unknown_adapter(part: str, name: str, known: Collection[str]) -> RefusedError:
    return RefusedError(
        f"{part} names {reprlib.repr(name)}, which is no adapter of this server{did_you_mean(name, known)}", param=part
    )


def check_model(model: Any) -> None:
    """Check that a model's name is short enough to be looked up, compared and quoted.

    Raises:
        RefusedError: it is not.
    """
    if isinstance(model, str) and len(model) > MAX_MODEL:
        raise RefusedError(
            f'"model" has {len(model)} characters, and no name here more than {MAX_MODEL}: see /v1/models',
            param="model",
        )


def no_such_model(name: str) -> RefusedError:
    """A refusal that is the same for disabled and removed adapters and for names that never existed."""
    message = f"the model {reprlib.repr(name)} does not exist: GET /v1/models lists those that do"
    return RefusedError(message, status=404, param="model")


def check_sole(request: dict[str, Any] | None) -> None:
    """Check that nothing but `model` says who is to answer a request for which not every adapter may.

    Raises:
        RefusedError: something might.
    """
    if request is None:
        raise RefusedError(
            "the body is not a JSON object, so nothing shows that it keeps to the request's "
            f"{PREFIX} headers and to what its key may use: send JSON"
        )
    model = request.get("model")
    if model is not None and not isinstance(model, str):
        raise RefusedError(f'"model" was {reprlib.repr(model)}, but must be text where constraints hold', param="model")
    if (field := named_beside(request)) is not None:
        raise RefusedError(
            f"{reprlib.repr(field)} might name an adapter past the request's constraints and what its key may use: "
            'name it in "model"',
            status=403,
            param=field[:64],
        )


def named_beside(request: Mapping[str, Any]) -> str | None:
    """The field by which some server might take an adapter beside `model`; None where there is none.

    To servers in Go `MODEL` is `model`.
    """
    settings = (request.get(key) for key in _SETTINGS)
    for part in (request, *(each for each in settings if isinstance(each, dict))):
        for field, value in part.items():
            is_model = part is request and field == "model"
            if not is_model and value is not None and _may_name_adapter(field.casefold()):
                return field
    return None


def _may_name_adapter(folded: str) -> bool:
    listed = folded == "model" or folded in _MORE_MODELS
    return listed or any(word in folded for word in _ADAPTER_WORDS)
