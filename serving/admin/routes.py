"""`/v1/adapters` over HTTP: the key first, then the body, then a thread in which the registry is changed."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...adapters import (
    AllowedSources,
    ConflictError,
    DatabaseError,
    InputError,
    Location,
    SourceError,
    TraitRouteError,
    UnknownNameError,
    WeightsError,
)
from ..http.body import read_body
from ..http.errors import RefusedError, database_error_response, error_response
from ..http.openapi import Endpoint, Operation
from ..http.paging import Page
from ..skills.reading import Asked, read_json, read_page
from ..state import ServerState
from ..timeouts import SaturatedError, TimeBudget
from .key import AdminKey
from .models import (
    AdapterChange,
    AdapterDeleted,
    AdapterList,
    AdapterRecord,
    NewAdapter,
    NewWeights,
)
from .registrar import Registrar

LARGEST_BODY = 2**16
SECONDS = 600.0
"""How long a change may take before its caller is told to look later: weights may come from far away."""
FETCHING, WAITING = 2, 16

_STATUSES = ((UnknownNameError, 404), (ConflictError, 409), (InputError, 400))

T = TypeVar("T")


def admin_operations(state: ServerState) -> list[Operation]:
    """What changes the registry that `state` follows, as the environment's key and allowed sources say."""
    api = _Api(state, AllowedSources.from_environment())
    act = partial(_operation, AdminKey.from_environment())
    one = "/v1/adapters/{name}"
    return [
        act("GET", "/v1/adapters", api.list, AdapterList, query=Page),
        act("POST", "/v1/adapters", api.add, body=NewAdapter, statuses=(200, 201)),
        act("GET", one, api.show),
        act("PATCH", one, api.change, body=AdapterChange, conditional=True),
        act("DELETE", one, api.remove, AdapterDeleted, conditional=True),
        act("PUT", f"{one}/weights", api.replace, body=NewWeights, statuses=(202,), conditional=True),
        act("DELETE", f"{one}/replacement", api.withdraw),
    ]


def _operation(
    key: AdminKey,
    method: str,
    path: str,
    act: Endpoint,
    answer: type[BaseModel] = AdapterRecord,
    **more: Any,
) -> Operation:
    return Operation(method, path, _guarded(key, act), answer, admins_only=True, **more)


class _Api:
    """The endpoints."""

    def __init__(self, state: ServerState, allowed: AllowedSources) -> None:
        self._state = state
        self._registrar = Registrar(self._location, allowed)
        # Threads of its own: weights that come slowly hold up neither routing nor what needs no weights.
        self._fetching = TimeBudget(workers=FETCHING, waiting=WAITING)
        self._changing = TimeBudget(workers=1, waiting=WAITING)

    async def list(self, request: Request) -> Response:
        """GET /v1/adapters."""
        page = read_page(request)
        return _json(200, await self._run(lambda: self._registrar.adapters(page)))

    async def show(self, request: Request) -> Response:
        """GET /v1/adapters/{name}."""
        name = request.path_params["name"]
        return _told(200, await self._run(lambda: self._registrar.adapter(name)))

    async def add(self, request: Request) -> Response:
        """POST /v1/adapters: 201, or 200 where the adapter is there already with these weights."""
        new = await self._read(request, NewAdapter)
        described, is_new = await self._fetch(lambda: self._registrar.add(new))
        return _told(201 if is_new else 200, described)

    async def change(self, request: Request) -> Response:
        """PATCH /v1/adapters/{name}."""
        change, (name, match) = await self._read(request, AdapterChange), _addressed(request)
        return _told(200, await self._run(lambda: self._registrar.change(name, change, match)))

    async def remove(self, request: Request) -> Response:
        """DELETE /v1/adapters/{name}."""
        name, match = _addressed(request)
        removed = await self._run(lambda: self._registrar.remove(name, match))
        return _json(200, AdapterDeleted(name=removed.name))

    async def replace(self, request: Request) -> Response:
        """PUT /v1/adapters/{name}/weights: 202, for they are served only once they are measured."""
        new, (name, match) = await self._read(request, NewWeights), _addressed(request)
        return _told(202, await self._fetch(lambda: self._registrar.replace(name, new, match)))

    async def withdraw(self, request: Request) -> Response:
        """DELETE /v1/adapters/{name}/replacement."""
        name = request.path_params["name"]
        return _told(200, await self._run(lambda: self._registrar.withdraw(name)))

    def _location(self) -> Location:
        if self._state.location is None:
            raise RefusedError("the server has not read its registry yet: try again", status=503)
        return self._state.location

    async def _read(self, request: Request, model: type[Asked]) -> Asked:
        return read_json(await read_body(request.receive, request.headers, LARGEST_BODY), model)

    async def _fetch(self, work: Callable[[], T]) -> T:
        return await self._fetching.run(work, SECONDS)

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._changing.run(work, SECONDS)


def _addressed(request: Request) -> tuple[str, str | None]:
    return request.path_params["name"], request.headers.get("if-match")


def _told(status: int, described: AdapterRecord) -> Response:
    return _json(status, described, etag=described.entity_tag)


def _json(status: int, answer: BaseModel, **headers: str) -> Response:
    return Response(answer.model_dump_json(), status, headers, media_type="application/json")


def _guarded(key: AdminKey, act: Endpoint) -> Endpoint:
    """An endpoint that asks for the key before it reads anything, and tells every refusal in one form."""

    async def answer(request: Request) -> Response:
        if (refusal := key.refusal(request.scope)) is not None:
            return refusal
        try:
            return await act(request)
        except RefusedError as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=499)
        except TimeoutError:
            return error_response(504, "it takes long and goes on: look later at GET /v1/adapters")
        except SaturatedError:
            why = "too many changes are under way: try again later"
            return error_response(503, why, headers={"retry-after": "10"})
        except OSError as exc:
            return error_response(503, f"the weight store cannot be written: {exc.strerror or exc}")
        except TraitRouteError as exc:
            return _reply(exc)

    return answer


def _reply(error: TraitRouteError) -> Response:
    if isinstance(error, DatabaseError):
        return database_error_response(error)
    param = "uri" if isinstance(error, SourceError | WeightsError) else None
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    return error_response(status, str(error), param=param)
