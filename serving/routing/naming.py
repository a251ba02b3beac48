"""Adapters asked for by name: a request's constraints bind them too, so that a proxy can enforce them by a header.

Where constraints say who may answer, nothing is handed on that could name another to the app behind: a body that is no JSON
object, a model that is no text, a spelling of `model` that some parsers take for it, or a field by which some servers take
an adapter beside it.
"""

import reprlib
from typing import Any

from .constraints import KEY, PREFIX, Limits
from .refusal import RefusedError
from .settings import Routing

MAX_MODEL = 1024
"""How many characters a model's name may have: base models are named by paths, too."""

_ADAPTER_FIELDS = frozenset({"adapter_id", "adapter_source", "lora", "lora_path", "lora_request"})
"""By which LoRAX, SGLang, llama.cpp and others take an adapter."""


def check_model(model: Any) -> None:
    """Check that a model's name is short enough to be looked up, compared and told.

    Raises:
        RefusedError: it is not.
    """
    if isinstance(model, str) and len(model) > MAX_MODEL:
        raise RefusedError(
            f'"model" has {len(model)} characters, and no name here more than {MAX_MODEL}: see /v1/models',
            param="model",
        )


def check_admitted(routing: Routing, model: str | None, limits: Limits) -> None:
    """Check that who is asked for by the name `model` may answer; the base model always may.

    Raises:
        RefusedError: it may not; the message names the constraint.
    """
    name = routing.resolve(model) if model else ""
    if not name or name in routing.base_names:
        return
    broken = limits.broken_by(name, routing.tags_of(name))
    if broken is not None:
        raise RefusedError(
            f"the request's constraint {broken} (the header {PREFIX}{broken}, or {KEY}.{broken} in the body) does not "
            f"admit {reprlib.repr(name)}: ask for auto, the base model or an adapter that it admits",
            status=403,
            param="model",
        )


def check_sole(request: dict[str, Any] | None) -> None:
    """Check that nothing but `model` says who is to answer a request that is bound by constraints.

    Raises:
        RefusedError: something might.
    """
    if request is None:
        raise RefusedError(
            f"the body is not a JSON object, so nothing shows that it keeps to the request's {PREFIX} headers: send JSON"
        )
    model = request.get("model")
    if model is not None and not isinstance(model, str):
        raise RefusedError(
            f'"model" was {reprlib.repr(model)}, but must be text where constraints hold',
            param="model",
        )
    for field in request:
        if (folded := field.casefold()) in _ADAPTER_FIELDS or (folded == "model" != field):
            raise RefusedError(
                f'{reprlib.repr(field)} might name an adapter past the request\'s constraints: name it in "model"',
                status=403,
                param=field[:64],
            )
