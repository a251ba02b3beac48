"""`GET /v1/jobs` and `GET /v1/jobs/{id}`: how far the measuring of added adapters is."""

import asyncio
from collections.abc import Callable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ...adapters import DatabaseError, RegistryError, UnknownNameError
from ..http.errors import database_error_response, error_response
from ..http.openapi import Operation
from ..state import ServerState
from .board import JobBoard
from .job import Job, JobList


def job_operations(state: ServerState) -> list[Operation]:
    """What can be asked of the jobs of the registry that `state` follows."""

    async def listed(request: Request) -> Response:
        return await _told(state, lambda board: JobList(data=tuple(board.jobs())))

    async def one(request: Request) -> Response:
        job_id = request.path_params["id"]
        return await _told(state, lambda board: board.job(job_id))

    return [
        Operation("GET", "/v1/jobs", listed, JobList),
        Operation("GET", "/v1/jobs/{id}", one, Job),
    ]


async def _told(state: ServerState, read: Callable[[JobBoard], BaseModel]) -> Response:
    if state.location is None:
        return error_response(503, "the registry was not read yet, so its jobs are not known")
    board = JobBoard(state.location)
    try:
        found = await asyncio.to_thread(read, board)
    except UnknownNameError as exc:
        return error_response(404, str(exc))
    except DatabaseError as exc:
        return database_error_response(exc)
    except RegistryError as exc:
        return error_response(503, str(exc))
    except ImportError as exc:
        return error_response(501, str(exc))
    return Response(found.model_dump_json(), media_type="application/json")
