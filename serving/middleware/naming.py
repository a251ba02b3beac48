"""Adapters asked for by name: a request's constraints bind them too, so that a proxy can enforce them by a header.

Where constraints say who may answer, nothing is handed on that could name another to the app behind: a body that is no JSON
object, a model that is no text, a spelling of `model` that some parsers take for it, or a field by which some servers take
an adapter beside it.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

from ..constraints import KEY, PREFIX, Limits
from ..http.errors import RefusedError
from ..state import ServerState

MAX_MODEL = 1024
"""How many characters a model's name may have: base models are named by paths, too."""

_ADAPTER_WORDS = ("adapter", "lora")
"""In the fields by which SGLang, LoRAX, TGI, TensorRT-LLM, llama.cpp, MLX and others take an adapter."""
_MORE_MODELS = frozenset({"fallbacks", "models"})
_SETTINGS = ("extra_body", "options", "parameters", "sampling_params")
"""Objects in a request whose fields some servers take as they take its own."""


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


def check_admitted(state: ServerState, model: str | None, limits: Limits) -> None:
    """Check that who is asked for by the name `model` may answer; the base model always may.

    Raises:
        RefusedError: it may not: the registry withholds it, or a constraint, which the message names, does not admit it.
    """
    name = state.resolve(model) if model else ""
    if not name or name in state.base_names:
        return
    if name in state.withheld:
        raise no_such_model(name)
    broken = limits.broken_by(name, state.tags_of(name))
    if broken is not None:
        raise RefusedError(
            f"the request's constraint {broken} (the header {PREFIX}{broken}, or {KEY}.{broken} in the body) does not "
            f"admit {reprlib.repr(name)}: ask for auto, the base model or an adapter that it admits",
            status=403,
            param="model",
        )


def no_such_model(name: str) -> RefusedError:
    """A refusal that does not tell a disabled or removed adapter from what never was."""
    message = f"the model {reprlib.repr(name)} does not exist: GET /v1/models lists those that do"
    return RefusedError(message, status=404, param="model")


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
    if (field := named_beside(request)) is not None:
        raise RefusedError(
            f'{reprlib.repr(field)} might name an adapter past the request\'s constraints: name it in "model"',
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
