"""The containers' entrypoint as real processes: a registry migrated, vLLM started, asked while it is told to end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
from traitroute.adapters import Registry
from traitroute.serving.vllm import free_port

from .conftest import ROOT

pytestmark = pytest.mark.slow

FOLDER = ROOT / "deploy" / "docker"
ENTRYPOINT = FOLDER / "entrypoint.py"
HEALTHCHECK = re.search(r'CMD \["python3", "-c", "(.+)"\]', (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
KEY = "user-key"
BEARER = {"authorization": f"Bearer {KEY}"}
STREAMS = 4
START_LIMIT_S, END_LIMIT_S = 600, 120


@contextmanager
def container(*arguments: str, log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The entrypoint with a container's arguments, its output in `log`, ended with the block."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, ENTRYPOINT, *arguments],
            env={**os.environ, **environment, "PATH": path},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        # A second signal ends the waiting for requests.
        while process.poll() is None:
            process.terminate()
            time.sleep(1)


def finished(*arguments: str, log: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and output of a container that ends by itself."""
    with container(*arguments, log=log, environment=environment) as process:
        code = process.wait(120)
    return code, log.read_text()


def is_healthy(port: int) -> bool:
    """What Docker's health check of the image says, asked at another port."""
    assert HEALTHCHECK
    program = HEALTHCHECK[1].replace(":8000", f":{port}")
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def processes_of(session: int) -> list[str]:
    """The processes of a session that live."""
    done = subprocess.run(["ps", "-o", "stat=,args=", "-s", str(session)], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if not line.startswith("Z")]


def test_an_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    environment = {"TRAITROUTE_REGISTRY": str(tmp_path / "absent.db")}
    code, said = finished("profiles", "list", log=tmp_path / "log", environment=environment)
    assert code == 2
    assert "no registry" in said


@pytest.mark.xdist_group("vllm")
def test_first_install_from_migration_to_a_calm_end(postgres: Any, tiny_chat: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="needs a server: pip install 'traitroute[serve]'")
    port = free_port()
    url = postgres.new_database()
    given = {
        "TRAITROUTE_REGISTRY": url,
        "TRAITROUTE_WEIGHTS": str(tmp_path / "weights"),
        "TRAITROUTE_API_KEY": KEY,
        "TRAITROUTE_DRAIN_URL": f"http://127.0.0.1:{port}/metrics",
        "TRAITROUTE_DRAIN_DELAY_S": "1",
    }
    code, said = finished("registry", "migrate", log=tmp_path / "migration.log", environment=given)
    assert (code, "has schema" in said) == (0, True)
    with Registry.open(url) as registry:
        assert registry.adapters() == []

    # What the worker's pod waits for.
    code, said = finished("traits", log=tmp_path / "traits.log", environment=given)
    assert (code, "no profile yet" in said) == (2, True)

    command = ["serve", str(tiny_chat), "--engine=vllm", "--host=127.0.0.1", f"--port={port}", "--max-model-len=256"]
    command += ["--api-key-env=TRAITROUTE_API_KEY", "--vllm", "--dtype=float32"]
    log = tmp_path / "server.log"
    with container(*command, log=log, environment=given) as process:
        assert not is_healthy(port)
        until = time.monotonic() + START_LIMIT_S
        while not is_healthy(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(1)
        [server] = children_of(process.pid)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=BEARER, timeout=120)
        assert client.get("/v1/models", headers={"authorization": ""}).status_code == 401
        assert "auto" in {each["id"] for each in client.get("/v1/models").json()["data"]}
        with ThreadPoolExecutor(STREAMS) as pool:
            # Told once, when all have begun: a second signal would end the waiting.
            begun = Barrier(STREAMS, lambda: process.send_signal(signal.SIGTERM))
            ended = [each.result() for each in [pool.submit(streamed, client, begun) for _ in range(STREAMS)]]
        assert process.wait(END_LIMIT_S) == 0
    # Each whole, though the server was told to stop when all had begun.
    assert ended == [200] * STREAMS
    said = log.read_text()
    assert "told to stop" in said
    assert "none is under way" in said
    assert processes_of(server) == []
    assert not is_healthy(port)


def children_of(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def streamed(client: httpx.Client, begun: Barrier) -> int:
    """Ask for 200 tokens as a stream, and wait at its first for the others; how many came, if it ended as it should."""
    body = {"model": "auto", "prompt": "w1 w2", "max_tokens": 200, "ignore_eos": True, "stream": True}
    tokens = 0
    with client.stream("POST", "/v1/completions", json=body | {"stream_options": {"include_usage": True}}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["x-traitroute-adapter"] == "base"
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return tokens
            if line.startswith("data: "):
                if not tokens:
                    begun.wait(END_LIMIT_S)
                usage = json.loads(line.removeprefix("data: ")).get("usage") or {}
                tokens = usage.get("completion_tokens", tokens or 1)
    return -tokens
