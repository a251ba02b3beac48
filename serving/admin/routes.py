"""`/v1/adapters` over HTTP: check the admin key, then read the body, then change the registry in a thread."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ...adapters import AllowedSources, Location
from ..http.body import read_body
from ..http.errors import UnavailableError, error_response
from ..http.keys import ApiKeys
from ..http.models import Model, Page, read_json, read_page
from ..http.openapi import Endpoint, Operation
from ..state import ServerState
from ..timeouts import SaturatedError, TimeBudget
from .registrar import AdapterChange, AdapterDeleted, AdapterList, AdapterRecord, NewAdapter, NewWeights, Registrar

VARIABLE = "TRAITROUTE_ADMIN_KEY"
HEADER = "x-traitroute-admin-key"
"""A header of its own, since `Authorization` carries the API key, which is checked before anything else."""
LARGEST_BODY = 2**16
SECONDS = 600.0
"""How long a change may take before its caller is told to check later: weights may come from far away."""
FETCHING, WAITING = 2, 16

T = TypeVar("T")


class AdminKey:
    """The administrator's key; without one set, no request is authorized."""

    def __init__(self, key: str) -> None:
        self._keys = ApiKeys([key]) if key else None

    @classmethod
    def from_environment(cls) -> "AdminKey":
        """The key in `$TRAITROUTE_ADMIN_KEY`."""
        return cls(os.environ.get(VARIABLE, "").strip())

    def refusal(self, scope: Scope) -> Response | None:
        """The response to a request without the key; None where it bears the key."""
        if self._keys is None:
            return error_response(
                403,
                f"adapters cannot be changed over HTTP here: the operator has set no {VARIABLE}; "
                "`traitroute adapters` changes them on the command line",
            )
        given = Headers(scope=scope).getlist(HEADER)
        if len(given) == 1 and self._keys.match(given[0]):
            return None
        return error_response(401, f"the admin key is missing or wrong: give it once, in {HEADER}")


def admin_operations(state: ServerState) -> list[Operation]:
    """The operations that change the registry of `state`, for the environment's admin key and allowed sources."""
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
    key: AdminKey, method: str, path: str, act: Endpoint, answer: type[BaseModel] = AdapterRecord, **more: Any
) -> Operation:
    async def guarded(request: Request) -> BaseModel | Response:
        # Before the body is read.
        return key.refusal(request.scope) or await act(request)

    return Operation(method, path, guarded, answer, admins_only=True, **more)


class _Api:
    """The endpoints."""

    def __init__(self, state: ServerState, allowed: AllowedSources) -> None:
        self._state = state
        self._registrar = Registrar(self._location, allowed)
        # Threads of its own: weights that arrive slowly delay neither routing nor changes that need no weights.
        self._fetching = TimeBudget(workers=FETCHING, waiting=WAITING)
        self._changing = TimeBudget(workers=1, waiting=WAITING)

    async def list(self, request: Request) -> AdapterList:
        """GET /v1/adapters."""
        page = read_page(request)
        return await _within(self._changing, lambda: self._registrar.adapters(page))

    async def show(self, request: Request) -> Response:
        """GET /v1/adapters/{name}."""
        name, _ = _addressed(request)
        return _record(200, await _within(self._changing, lambda: self._registrar.adapter(name)))

    async def add(self, request: Request) -> Response:
        """POST /v1/adapters: 201, or 200 where the adapter exists already with these weights."""
        new = await _read(request, NewAdapter)
        record, is_new = await _within(self._fetching, lambda: self._registrar.add(new))
        return _record(201 if is_new else 200, record)

    async def change(self, request: Request) -> Response:
        """PATCH /v1/adapters/{name}."""
        change, (name, match) = await _read(request, AdapterChange), _addressed(request)
        return _record(200, await _within(self._changing, lambda: self._registrar.change(name, change, match)))

    async def remove(self, request: Request) -> AdapterDeleted:
        """DELETE /v1/adapters/{name}."""
        name, match = _addressed(request)
        removed = await _within(self._changing, lambda: self._registrar.remove(name, match))
        return AdapterDeleted(name=removed.name)

    async def replace(self, request: Request) -> Response:
        """PUT /v1/adapters/{name}/weights: 202, since they are served only once they are measured."""
        new, (name, match) = await _read(request, NewWeights), _addressed(request)
        return _record(202, await _within(self._fetching, lambda: self._registrar.replace(name, new, match)))

    async def withdraw(self, request: Request) -> Response:
        """DELETE /v1/adapters/{name}/replacement."""
        name, _ = _addressed(request)
        return _record(200, await _within(self._changing, lambda: self._registrar.withdraw(name)))

    def _location(self) -> Location:
        if self._state.snapshot.location is None:
            raise UnavailableError("the server has not read its registry yet: try again")
        return self._state.snapshot.location


async def _read(request: Request, model: type[Model]) -> Model:
    return read_json(await read_body(request.receive, request.headers, LARGEST_BODY), model)


def _addressed(request: Request) -> tuple[str, str | None]:
    return request.path_params["name"], request.headers.get("if-match")


def _record(status: int, record: AdapterRecord) -> Response:
    headers = {"etag": record.entity_tag}
    return Response(record.model_dump_json(), status, headers, media_type="application/json")


async def _within(budget: TimeBudget, work: Callable[[], T]) -> T:
    try:
        return await budget.run(work, SECONDS)
    except TimeoutError as exc:
        message = "it takes long and goes on: look later at GET /v1/adapters"
        raise UnavailableError(message, status=504, retry_s=None) from exc
    except SaturatedError as exc:
        raise UnavailableError("too many changes are under way: try again later", retry_s=10) from exc
    except OSError as exc:
        message = f"the weight store cannot be written: {exc.strerror or exc}"
        raise UnavailableError(message, retry_s=None) from exc
