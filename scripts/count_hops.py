"""Count the files that one request and one command run through: how far a reader has to follow them.

    python scripts/count_hops.py                    the two ways below, on a tiny registry that it makes
    python scripts/count_hops.py --files            and which files they are

One `auto` request: a chat through the routing middleware, with a watched registry, a measured adapter and a loader that
has nothing to do. One `traitroute adapters add` of a small PEFT folder. Both have run once before they are counted, so
that nothing is counted that happens only at a start. A *move* is a call from one of our files into another; the second
figure of moves, for comparison, counts a file once each time the stream of calls enters it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import save_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.router import FitRequests, fit_profile
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from made_up_summary import made_up_summary  # noqa: E402 - it lies with the benchmarks

ROOMS = ("adapters", "router", "profiling", "serving", "cli")
TOPICS = {
    "coder": ["write a python function", "fix this compiler error", "what does this loop print"],
    "cook": ["how long do I boil eggs", "a recipe with rice and beans", "bake bread without yeast"],
    "critic": ["was the film any good", "review this novel", "is the acting convincing"],
}
PROMPT = "write a python function a"


class Hops:
    """A profiling hook that notes in which of our files each call of ours begins, in every thread, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[tuple[str, str | None]] = []
        self._names: dict[str, str | None] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.on or event != "call":
            return
        if file := self._file(frame):
            caller = frame.f_back
            while caller is not None and self._file(caller) is None:
                caller = caller.f_back
            self.calls.append((file, self._file(caller) if caller else None))

    def _file(self, frame: FrameType) -> str | None:
        """The path of a frame's code in this repository; None where it is not ours."""
        name = frame.f_code.co_filename
        if name not in self._names:
            path = Path(name).resolve()
            inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS
            self._names[name] = str(path.relative_to(ROOT)) if inside else None
        return self._names[name]

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what runs inside."""
        self.calls.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def report(self, name: str, *, files: bool) -> str:
        """One line of figures, and the files where they are wanted."""
        order = [file for file, _ in self.calls]
        moves = sum(caller is not None and caller != file for file, caller in self.calls)
        entered = 1 + sum(a != b for a, b in pairwise(order))
        line = f"{name:<15} files {len(set(order)):>3}   moves {moves:>3}   files entered {entered:>3}"
        counts = (f"    {order.count(file):>4} calls  {file}" for file in sorted(set(order)))
        return "\n".join([line, *counts]) if files else line


def make_registry(path: Path) -> None:
    """A registry with two adapters that are ready, and a routing profile fitted on made-up gains."""
    names = list(TOPICS)
    texts = [f"{text} {word}" for topic in TOPICS.values() for text in topic for word in "abcd"]
    tasks = [name for name, topic in TOPICS.items() for _ in range(4 * len(topic))]
    gains = np.array([[0.9 if n == task else -0.3 for n in names] for task in tasks])
    by_task = np.where(np.eye(len(names)) > 0, 0.9, -0.3)
    u, s, _ = np.linalg.svd(by_task - by_task.mean(axis=0))
    traits = (u * s)[:, :2]
    profile = fit_profile(names, FitRequests(texts, tasks, gains), traits, n_traits=2)
    with Registry.create(path) as registry:
        for digit, name in enumerate(names, start=1):
            registry.add_adapter(
                Adapter(
                    name=name,
                    base_model="tiny",
                    base_digest="0" * 64,
                    weights_digest=str(digit) * 64,
                    rank=8,
                    target_modules=("q_proj",),
                    state=AdapterState.READY,
                )
            )
        registry.put_profile(profile.to_bytes(), made_up_summary(names, names, scores=0.1 + by_task))


def save_adapter(folder: Path, fill: float) -> Path:
    """A PEFT folder of one layer."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "tiny"}))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    halves = {"A": np.full((2, 8), fill, "f4"), "B": np.full((8, 2), fill, "f4")}
    save_file(
        {f"{stem}.lora_{side}.weight": half for side, half in halves.items()}, folder / "adapter_model.safetensors"
    )
    return folder


async def ask(hops: Hops, path: Path) -> None:
    """One `auto` chat, counted the second time."""
    # Imported here, so that the counted code's threads begin with the hook in place.
    from traitroute.serving.middleware import RoutingMiddleware
    from traitroute.serving.state import ServerState
    from traitroute.serving.watcher import RegistryWatcher

    class Loader:
        async def ensure(self, name: str) -> None:
            """Everything is loaded."""

    async def echo(request: Request) -> Response:
        return JSONResponse({"model": json.loads(await request.body())["model"]})

    state = ServerState(base_names=("tiny",), loader=Loader(), budget_s=5.0)
    watcher = RegistryWatcher(state, lambda: Registry.open(path, read_only=True), lambda *_: None)
    await watcher.start()
    app = RoutingMiddleware(Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])]), state=state)
    body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        await client.post("/v1/chat/completions", json=body)
        with hops.counting():
            reply = await client.post("/v1/chat/completions", json=body)
    await watcher.stop()
    assert reply.json() == {"model": "coder"}, dict(reply.headers)


def add(hops: Hops, path: Path, folder: Path) -> None:
    """`adapters add` of a second adapter, counted."""
    from traitroute.cli.main import app

    def run(name: str, fill: float) -> None:
        made = save_adapter(folder / name, fill)
        done = CliRunner().invoke(app, ["adapters", "add", "--registry", str(path), name, str(made)])
        assert done.exit_code == 0, done.output

    run("first", 0.25)
    with hops.counting():
        run("second", 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="list the files")
    options = parser.parse_args()
    hops = Hops()
    threading.setprofile(hops)
    sys.setprofile(hops)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tiny.db"
        make_registry(path)
        ways: dict[str, Callable[[], Any]] = {
            "auto request": lambda: asyncio.run(ask(hops, path)),
            "adapters add": lambda: add(hops, path, Path(scratch)),
        }
        for name, way in ways.items():
            way()
            print(hops.report(name, files=options.files))


if __name__ == "__main__":
    main()
