"""The routes of the page, open to all: what it shows comes from the data routes, which ask for the server's key."""

import asyncio
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ..http.errors import error_response
from .served_file import ServedFile

PATH = "/traits"
_FOLDER = Path(__file__).with_name("static")
_PAGE = "page.html"
_WEEK_S = 7 * 24 * 3600


def page_routes() -> list[Route]:
    """The page, its scripts and styles, and the plotting library from where it is installed."""
    # A route a file: no path is made of what a request says.
    parts = (file for file in sorted(_FOLDER.iterdir()) if file.name != _PAGE)
    return [
        Route(PATH, partial(_file, _FOLDER / _PAGE)),
        Route(f"{PATH}/", _without_slash),
        Route(f"{PATH}/plotly.js", _plotly),
        *(Route(f"{PATH}/{file.name}", partial(_file, file)) for file in parts),
    ]


def page_paths() -> frozenset[str]:
    """The paths of these routes, which need no key."""
    return frozenset(route.path for route in page_routes())


async def _file(path: Path, request: Request) -> Response:
    return await _answer(request, path)


async def _without_slash(request: Request) -> Response:
    """The page's links are relative to its path, so that it works behind a prefix too."""
    return RedirectResponse(f"..{PATH}")


async def _plotly(request: Request) -> Response:
    path = _plotly_path()
    if path is None:
        return error_response(404, "no plots here: pip install 'traitroute[skills]'")
    return await _answer(request, path, keeps_s=_WEEK_S)


def _plotly_path() -> Path | None:
    """Where the Python package `plotly` keeps the library for browsers; it need not be imported for that."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    return path if path.is_file() else None


async def _answer(request: Request, path: Path, *, keeps_s: int = 0) -> Response:
    # Reading and compressing the library takes a fifth of a second.
    file = await asyncio.to_thread(ServedFile.read, path)
    return file.answer(request, keeps_s=keeps_s)
