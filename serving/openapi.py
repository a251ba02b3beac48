"""Describe routes of ours in OpenAPI 3.1, from the pydantic models that they read and answer with."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

_REFUSED = {
    "description": "Refused; the message says what was given, what was wanted, and the cure."
}


@dataclass(frozen=True)
class Operation:
    """One method of one path: what computes the answer, and the models of body (None: there is none) and answer."""

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[BaseModel]]
    answer: type[BaseModel]
    body: type[BaseModel] | None = None

    @property
    def summary(self) -> str:
        """The first sentence of the answer's description."""
        return (self.answer.__doc__ or "").strip().splitlines()[0]


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    models = [(o.answer, "serialization") for o in operations]
    models += [(o.body, "validation") for o in operations if o.body is not None]
    names, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # pyright: ignore[reportArgumentType]
    paths: dict[str, Any] = {}
    for o in operations:
        described = {
            "operationId": re.sub(r"\W+", "_", f"{o.method.lower()}{o.path}").strip("_"),
            "summary": o.summary,
            "parameters": [_parameter(name) for name in re.findall(r"{(\w+)}", o.path)],
            "responses": {
                "200": _content("The answer.", names[o.answer, "serialization"]),
                "4XX": _REFUSED,
            },
        }
        if o.body is not None:
            content = _content("", names[o.body, "validation"])["content"]
            described["requestBody"] = {"required": True, "content": content}
        paths.setdefault(o.path, {})[o.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "TraitRoute", "version": version("traitroute")},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
