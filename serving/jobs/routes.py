"""`GET /v1/jobs` and `GET /v1/jobs/{id}`: how far the measuring of added adapters is."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...adapters import RegistryError
from ..replies import error_reply
from .board import JobBoard


def job_routes(board: JobBoard) -> list[Route]:
    """The routes over `board`; who may ask is checked by whoever mounts them."""

    async def listed(request: Request) -> Response:
        return await _told(lambda: {"object": "list", "data": [_json(j) for j in board.jobs()]})

    async def one(request: Request) -> Response:
        return await _told(lambda: _json(board.job(request.path_params["id"])))

    return [Route("/v1/jobs", listed), Route("/v1/jobs/{id}", one)]


def _json(job: Any) -> dict[str, Any]:
    return job.model_dump(mode="json")


async def _told(read: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(await asyncio.to_thread(read))
    except RegistryError as exc:
        return error_reply(404, str(exc))
    except ImportError as exc:
        return error_reply(501, str(exc))
