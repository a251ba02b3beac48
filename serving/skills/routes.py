"""The skills API over HTTP: read, check, compute off the event loop, answer."""

import asyncio
import json
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..replies import error_reply
from ..routing.body import read_body
from ..routing.budget import SaturatedError
from ..routing.refusal import RefusedError
from ..routing.settings import Routing
from .models import PlanRequest, SelectRequest
from .skills import Skills

T = TypeVar("T")
Asked = TypeVar("Asked", bound=BaseModel)

SECONDS = 2.0
"""What a piece of work may take, waiting for a thread included; an agent waits longer than a request for tokens."""
_RETRY = {"retry-after": "1"}


class UnavailableError(Exception):
    """Nothing can be answered now."""


def skill_routes(routing: Routing) -> list[Route]:
    """The routes of the skills API, answered from the snapshot that `routing` has."""
    api = _Api(routing)
    return [
        Route("/v1/skills/select", _answering(api.select), methods=["POST"]),
        Route("/v1/skills/plan", _answering(api.plan), methods=["POST"]),
        Route("/v1/skills", _answering(api.cards)),
        Route("/v1/skills/{name}", _answering(api.card)),
        Route("/v1/traits", _answering(api.traits)),
        Route("/v1/matrix", _answering(api.matrix)),
    ]


class _Api:
    """The endpoints, each from a request to a model."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    async def select(self, request: Request) -> BaseModel:
        """POST /v1/skills/select."""
        asked, skills = await self._read(request, SelectRequest), self._skills()
        return await self._run(lambda: skills.select(asked))

    async def plan(self, request: Request) -> BaseModel:
        """POST /v1/skills/plan."""
        asked, skills = await self._read(request, PlanRequest), self._skills()
        # A step a turn, so that requests for tokens are routed between the steps of a long plan.
        weighed = [
            await self._run(lambda step=step, i=i: skills.weigh(step, f"steps.{i}"))
            for i, step in enumerate(asked.steps)
        ]
        return await self._run(lambda: skills.assigned(weighed, asked.max_loss))

    async def cards(self, request: Request) -> BaseModel:
        """GET /v1/skills."""
        return await self._run(self._skills().cards)

    async def card(self, request: Request) -> BaseModel:
        """GET /v1/skills/{name}."""
        skills = self._skills()
        return await self._run(lambda: skills.card(request.path_params["name"]))

    async def traits(self, request: Request) -> BaseModel:
        """GET /v1/traits."""
        return await self._run(self._skills().traits)

    async def matrix(self, request: Request) -> BaseModel:
        """GET /v1/matrix."""
        return await self._run(self._skills().matrix)

    def _skills(self) -> Skills:
        snapshot = self._routing.snapshot
        if snapshot is None:
            why = self._routing.no_router or "the newest profile is too old to tell of skills"
            raise UnavailableError(why)
        return Skills(snapshot, loaded=self._routing.loaded)

    async def _read(self, request: Request, model: type[Asked]) -> Asked:
        body = await read_body(request.receive, request.headers, self._routing.max_body_bytes)
        return await self._run(lambda: read_model(body, model))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._routing.budget.run(work, SECONDS)
        except (TimeoutError, SaturatedError) as exc:
            raise UnavailableError("routing is busy: try again in a second") from exc


def read_model(body: bytes, model: type[Asked]) -> Asked:
    """Read a body of JSON as `model`.

    Raises:
        RefusedError: it is none; the message names the part at fault.
    """
    try:
        # Not by pydantic's own parser: what other endpoints accept as JSON is accepted here.
        return model.model_validate(json.loads(body))
    except ValidationError as exc:
        raise _refusal(exc) from exc
    except (ValueError, RecursionError) as exc:
        raise RefusedError("the body is not JSON: send an object as /v1/openapi.json says") from exc


def _refusal(error: ValidationError) -> RefusedError:
    fault = error.errors(include_url=False, include_context=False)[0]
    part = ".".join(map(str, fault["loc"]))
    given = "" if fault["type"] == "missing" else f" was {reprlib.repr(fault['input'])}:"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        given, message = "", "is not known: leave it out, or see /v1/openapi.json for what is"
    return RefusedError(f"{part or 'the body'}{given} {message}", param=part or None)


def _answering(
    endpoint: Callable[[Request], Any],
) -> Callable[[Request], Any]:
    """An endpoint of Starlette's that tells every refusal in one form."""

    async def answer(request: Request) -> Response:
        try:
            found: BaseModel = await endpoint(request)
            text = await asyncio.to_thread(found.model_dump_json)
        except RefusedError as refused:
            return refused.response()
        except UnavailableError as exc:
            return error_reply(503, str(exc), headers=_RETRY)
        except ClientDisconnect:
            return Response(status_code=499)
        return Response(text, media_type="application/json")

    return answer
