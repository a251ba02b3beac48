"""Servers as child processes: `vllm serve` with TraitRoute inside, and others; for its options see `options`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from ...adapters import Adapter, InputError, Location, Place, ServerError
from ..state import BASE
from .options import CPU_VARIABLES, PRIVACY_VARIABLES, SERVER_VARIABLES, SPARE_SLOTS, engine_options, on_cpu

# A server of this machine is not behind a proxy.
_direct = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class RunningServer:
    """A server that answers: `base_url` is without the `/v1`, `pid` leads its process group."""

    base_url: str
    log_path: Path
    pid: int


def serve_command(
    base_model: str | Path,
    adapters: Sequence[Adapter],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_model_len: int = 2048,
    options: Sequence[str] = (),
) -> list[str]:
    """The command line that serves `base_model` under its own name and as `base`, ready for `adapters`.

    `options` are handed to `vllm serve` as they are.

    Raises:
        InputError: the base model's name would be taken for a flag.
    """
    command = [str(Path(sys.executable).with_name("vllm")), "serve", _value(base_model)]
    settings = {"host": host, "port": port, "served_model_name": [_served_name(base_model), BASE]}
    settings |= engine_options(adapters, max_model_len=max_model_len, spare=SPARE_SLOTS)
    return [*command, *_flags(settings), *options]


def serve_environment(registry: Place, base_model: str | Path, *, base_digest: str | None = None) -> dict[str, str]:
    """This process's environment, with what the server needs; values already set are kept.

    With `base_digest` no adapter of another base model is served.
    """
    defaults = PRIVACY_VARIABLES | SERVER_VARIABLES
    if on_cpu():
        defaults |= CPU_VARIABLES
    if Path(base_model).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    # The list names every plugin that may load, so others asked for stay in it.
    plugins = {"traitroute", *filter(None, os.environ.get("VLLM_PLUGINS", "").split(","))}
    ours = {
        "VLLM_PLUGINS": ",".join(sorted(plugins)),
        "TRAITROUTE_REGISTRY": Location.parse(registry).absolute().reveal(),
    }
    if base_digest is not None:
        ours["TRAITROUTE_BASE_DIGEST"] = base_digest
    return defaults | dict(os.environ) | ours


@contextmanager
def running_server(
    registry: Place,
    base_model: str | Path,
    adapters: Sequence[Adapter],
    *,
    log_path: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_model_len: int = 2048,
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    start_limit_s: float = 600.0,
) -> Iterator[RunningServer]:
    """Serve until the block ends; `port` None takes a free one, `variables` are set in the server's environment alone.

    Raises:
        ServerError: the server ended or did not answer in time; the message ends with its log.
    """
    port = free_port(host) if port is None else port
    command = serve_command(base_model, adapters, host=host, port=port, max_model_len=max_model_len, options=options)
    environment = serve_environment(registry, base_model) | dict(variables or {})
    url = f"http://{host}:{port}"
    with running_process(
        command, url, log_path=log_path, environment=environment, start_limit_s=start_limit_s
    ) as server:
        yield server


@contextmanager
def running_process(
    command: Sequence[str],
    base_url: str,
    *,
    log_path: Path,
    environment: Mapping[str, str] | None = None,
    start_limit_s: float = 600.0,
) -> Iterator[RunningServer]:
    """Run `command`, whose server is ready once `/health` answers, until the block ends; then end all that it started.

    Raises:
        ServerError: the server ended or did not answer in time; the message ends with its log.
    """
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    server = RunningServer(base_url, log_path, process.pid)
    try:
        _await_health(process, server, time.monotonic() + start_limit_s)
        yield server
    finally:
        _stop(process)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _served_name(base_model: str | Path) -> str:
    folder = Path(base_model)
    return folder.resolve().name if folder.is_dir() else str(base_model)


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Engine options as command-line flags."""
    flags: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        flags += [f"--{name.replace('_', '-')}", *map(_value, values)]
    return flags


def _value(value: Any) -> str:
    """A value as vLLM's command line takes it, which reads whatever begins with a hyphen as a flag."""
    if (text := str(value)).startswith("-"):
        raise InputError(f"{text!r} would be read as a flag of `vllm serve`: give another value")
    return text


def _await_health(process: subprocess.Popen[bytes], server: RunningServer, until: float) -> None:
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ServerError(f"{_name(process)} ended with code {process.returncode}:\n{_tail(server.log_path)}")
        with suppress(URLError, OSError), _direct.open(f"{server.base_url}/health", timeout=5):
            return
        time.sleep(0.5)
    raise ServerError(f"{_name(process)} did not answer in time:\n{_tail(server.log_path)}")


def _name(process: subprocess.Popen[bytes]) -> str:
    command = cast("Sequence[str]", process.args)
    return " ".join([Path(command[0]).name, *command[1:2]])


def _tail(log_path: Path, lines: int = 30) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-lines:])


def _stop(process: subprocess.Popen[bytes], patience_s: float = 20.0) -> None:
    """End the server and the engine processes it started, which share its process group."""
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
