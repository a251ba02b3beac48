"""The operations of our HTTP APIs: routes, and their description in OpenAPI 3.1 from the pydantic models they use."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...adapters import TraitRouteError
from .errors import ErrorResponse, exception_response

PATH = "/v1/openapi.json"
Endpoint = Callable[[Request], Awaitable[BaseModel | Response]]
_CLIENT_ERROR = "The request was refused; the message says what was given, what was wanted, and how to correct it."
_SERVER_ERROR = "The server, or something it depends on, cannot answer now; the message says why."


@dataclass(frozen=True)
class Operation:
    """One method of one path: `endpoint` answers it, with the model `answer` and one of `statuses`.

    `body` and `query` are the models of what it reads (None: nothing). With `admins_only` the administrator's key is
    asked for, with `conditional` the header If-Match is read.
    """

    method: str
    path: str
    endpoint: Endpoint
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    admins_only: bool = False
    conditional: bool = False

    @property
    def summary(self) -> str:
        """The first line of the answer's docstring."""
        return (self.answer.__doc__ or "").strip().splitlines()[0]

    def route(self) -> Route:
        """The route that answers it."""
        return Route(self.path, self._respond, methods=[self.method])

    async def _respond(self, request: Request) -> Response:
        try:
            answer = await self.endpoint(request)
        except TraitRouteError as exc:
            return exception_response(exc)
        except ClientDisconnect:
            return Response(status_code=499)
        if isinstance(answer, Response):
            return answer
        # In a thread, for a page may hold a thousand skills.
        text = await asyncio.to_thread(answer.model_dump_json)
        return Response(text, media_type="application/json")


def description_route(operations: Sequence[Operation], *, admin_header: str) -> Route:
    """The route that describes these operations."""
    described = document(operations, admin_header=admin_header)
    return Route(PATH, lambda _: JSONResponse(described))


def document(operations: Sequence[Operation], *, admin_header: str) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    models = {(o.answer, "serialization") for o in operations} | {(ErrorResponse, "serialization")}
    models |= {(o.body, "validation") for o in operations if o.body is not None}
    names, schemas = models_json_schema(
        sorted(models, key=lambda m: (m[0].__name__, m[1])),  # pyright: ignore[reportArgumentType]
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, Any] = {}
    for o in operations:
        error = names[ErrorResponse, "serialization"]
        answer = _content("The answer.", names[o.answer, "serialization"])
        described: dict[str, Any] = {
            "operationId": re.sub(r"\W+", "_", f"{o.method.lower()}{o.path}").strip("_"),
            "summary": o.summary,
            "parameters": _parameters(o),
            "responses": {
                **{str(status): answer for status in o.statuses},
                "4XX": _content(_CLIENT_ERROR, error),
                "5XX": _content(_SERVER_ERROR, error),
            },
        }
        if o.body is not None:
            content = _content("", names[o.body, "validation"])["content"]
            described["requestBody"] = {"required": True, "content": content}
        if o.admins_only:
            described["security"] = [{"key": [], "admin": []}]
        paths.setdefault(o.path, {})[o.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "TraitRoute", "version": version("traitroute")},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "admin": {"type": "apiKey", "in": "header", "name": admin_header},
            },
        },
    }


def _parameters(o: Operation) -> list[dict[str, Any]]:
    parameters = [_parameter(name, "path", {"type": "string"}) for name in re.findall(r"{(\w+)}", o.path)]
    if o.query is not None:
        properties = o.query.model_json_schema()["properties"]
        parameters += [_parameter(name, "query", schema) for name, schema in properties.items()]
    if o.conditional:
        parameters.append(_parameter("If-Match", "header", {"type": "string"}))
    return parameters


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
