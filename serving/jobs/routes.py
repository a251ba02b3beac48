"""`GET /v1/jobs` and `GET /v1/jobs/{id}`: how far the measuring of added adapters is."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...adapters import RegistryError, UnknownNameError
from ..replies import error_reply
from ..routing import Routing
from .board import JobBoard


def job_routes(routing: Routing) -> list[Route]:
    """The routes that read the jobs of the registry that `routing` follows."""

    async def listed(request: Request) -> Response:
        return await _told(
            routing,
            lambda board: {
                "object": "list",
                "data": [job.model_dump(mode="json") for job in board.jobs()],
            },
        )

    async def one(request: Request) -> Response:
        job_id = request.path_params["id"]
        return await _told(routing, lambda board: board.job(job_id).model_dump(mode="json"))

    return [Route("/v1/jobs", listed), Route("/v1/jobs/{id}", one)]


async def _told(routing: Routing, read: Callable[[JobBoard], dict[str, Any]]) -> Response:
    if routing.location is None:
        return error_reply(503, "the registry was not read yet, so its jobs are not known")
    board = JobBoard(routing.location)
    try:
        return JSONResponse(await asyncio.to_thread(read, board))
    except UnknownNameError as exc:
        return error_reply(404, str(exc))
    except RegistryError as exc:
        return error_reply(503, str(exc))
    except ImportError as exc:
        return error_reply(501, str(exc))
