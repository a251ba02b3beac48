"""Servers for tests: an ASGI app in a thread, `traitroute` as a process, and two real vLLM servers, each started once.

Starting vLLM takes half a minute of both cores. Tests that use one bear `xdist_group("vllm")`, which keeps them in one
process. All share a registry: tests leave it as they found it, but for "gardener", whose weights are replaced. The
servers end with the last of these tests: a vLLM that waits holds 2 GB, and two engines as one keep a core busy.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_up_summary import made_up_summary
from safetensors.numpy import load_file, save_file
from serving.stand import (
    TINY_OPTIONS,
    Stand,
    adapter_record,
    save_adapter,
    save_adapters,
    tiny_base,
    topic_profile,
)
from serving.topics import TOPICS
from traitroute.adapters import AdapterState, Registry
from traitroute.serving.http.tenants import key_hash
from traitroute.serving.vllm import RunningServer, free_port, running_process, running_server

KEY, ADMIN, UPSTREAM = "user-key", "admin-key", "upstream-key"
PAGE = "https://app.example"
"""The web origin that the server with the plugin lets ask."""
SOUND = "sound"
"""The folder of an adapter that no registry knows, and that nothing is wrong with."""
RETIRED = "teacher"
"""An adapter that is disabled, though both servers were told of it on their command line."""
WIDE, HALF = "wide", "half"
"""Adapters that vLLM cannot serve: its rank is above the highest; half of its layers are none of the base model's."""
RANK, CONTEXT = 8, 256
HALVED, COOKS = "key-of-halved", "key-of-cooks"
TENANTS = f"""
[tenants.halved]
keys = ["{key_hash(HALVED)}"]
adapters = ["*"]
holdback = 0.5

[tenants.cooks]
keys = ["{key_hash(COOKS)}"]
adapters = ["cook"]
"""
"""The tenants of the server with the plugin: one with a control group, and one of one adapter."""


RUNNING = ExitStack()
"""The servers that run; `tests/conftest.py` closes it after the last test of their group."""


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI app from a thread of this process, as our servers do; its URL. `options` are uvicorn's."""
    pytest.importorskip("uvicorn", reason="needs it: pip install 'traitroute[embedded]'")
    from traitroute.serving.http.server import make_server

    server = make_server(app, host="127.0.0.1", **{"port": 0, "log_level": "error"} | options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "it did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def running_traitroute(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """Run a `traitroute` command that serves, on a free port, until the block ends."""
    port = str(free_port())
    command = [str(Path(sys.executable).with_name("traitroute")), *arguments, "--port", port]
    given = dict(os.environ) | dict(environment or {})
    with running_process(command, f"http://127.0.0.1:{port}", log_path=log, environment=given) as server:
        yield server


@dataclass(frozen=True)
class TinyHouse:
    """A two-layer Llama in float32 and the registry of its adapters, each of which changes every answer."""

    base: Path
    registry: Registry

    @property
    def folder(self) -> Path:
        """Where both are; adapters may be added from it."""
        return self.base.parent

    def stand(self, server: RunningServer) -> Stand:
        """What the serving benchmarks run against."""
        rows = {name: TOPICS[name] for name in reversed(TOPICS) if name != RETIRED}
        return Stand(server, self.registry, self.folder, self.base, rows, KEY)

    def preloaded(self) -> str:
        """The retired adapter, as vLLM is told of it on its command line."""
        retired = self.registry.adapter(RETIRED)
        return f"{RETIRED}={self.registry.weights.path(retired.weights_digest)}"


@pytest.fixture(scope="session")
def tiny_house(tmp_path_factory: pytest.TempPathFactory) -> TinyHouse:
    """A base model, and a registry in which one adapter is disabled and two cannot be served."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
    folder = tmp_path_factory.mktemp("house")
    base = tiny_base(folder / "tiny")
    registry = Registry.create(folder / "registry.db")
    save_adapters(base, [folder / name for name in (*TOPICS, SOUND)], weights=0.5)
    save_adapter(base, folder / WIDE, seed=9, rank=2 * RANK)
    for name in (*TOPICS, WIDE):
        registry.add_adapter(adapter_record(registry, folder / name, name, base))
    _add_half(registry, folder)
    registry.put_profile(topic_profile().to_bytes(), made_up_summary())
    registry.set_state(RETIRED, AdapterState.DISABLED)
    return TinyHouse(base, registry)


def _add_half(registry: Registry, folder: Path) -> None:
    """Record an adapter of an older registry, of which vLLM would serve one layer, under unknown modules."""
    save_adapter(folder / "tiny", folder / HALF, seed=11)
    tensors = load_file(folder / HALF / "adapter_model.safetensors")
    renamed = {k.replace("model.layers.1.", "_orig_mod.model.layers.1."): v for k, v in tensors.items()}
    save_file(renamed, folder / HALF / "adapter_model.safetensors")
    changes = {
        "name": HALF,
        "weights_digest": registry.weights.add(folder / HALF).digest,
        "target_modules": ("!", "--host=0.0.0.0", "--api-key=x"),
        "state": AdapterState.PENDING,
    }
    registry.add_adapter(registry.adapter("cook").model_copy(update=changes))


@pytest.fixture(scope="session")
def vllm_server(tiny_house: TinyHouse) -> RunningServer:
    """vLLM with the plugin: two API server processes before two engines, keys and tenants."""
    pytest.importorskip("vllm", reason="needs a server: pip install 'traitroute[serve]'")
    house, registry = tiny_house, tiny_house.registry
    tenants = house.folder / "tenants.toml"
    tenants.write_text(TENANTS)
    options = [*TINY_OPTIONS, "--api-key", KEY, "--lora-modules", house.preloaded()]
    options += ["--api-server-count", "2", "--data-parallel-size", "2", "--scheduling-policy", "priority"]
    options += ["--max-lora-rank", str(RANK), "--allowed-origins", f'["{PAGE}"]']
    server = running_server(
        registry.path,
        house.base,
        registry.adapters(),
        log_path=house.folder / "server.log",
        max_model_len=CONTEXT,
        options=options,
        variables={
            "TRAITROUTE_ADMIN_KEY": ADMIN,
            "TRAITROUTE_ALLOWED_SOURCES": str(house.folder),
            "TRAITROUTE_TENANTS": str(tenants),
        },
    )
    return RUNNING.enter_context(server)


@pytest.fixture(scope="session")
def upstream_server(tiny_house: TinyHouse) -> RunningServer:
    """vLLM without the plugin, which loads whatever the holder of its key says."""
    pytest.importorskip("vllm", reason="needs a server: pip install 'traitroute[serve]'")
    house, registry = tiny_house, tiny_house.registry
    server = running_server(
        registry.path,
        house.base,
        registry.servable(),
        log_path=house.folder / "upstream.log",
        max_model_len=CONTEXT,
        options=[*TINY_OPTIONS, "--api-key", UPSTREAM, "--lora-modules", house.preloaded()],
        variables={"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
    )
    return RUNNING.enter_context(server)


@pytest.fixture(scope="session")
def gateway_server(tiny_house: TinyHouse, upstream_server: RunningServer) -> RunningServer:
    """`traitroute gateway` before that vLLM."""
    command = ["gateway", "--load", "vllm", "--upstream", upstream_server.base_url, "--key-env", "A_KEY"]
    command += ["--upstream-key-env", "AN_UPSTREAM_KEY", "--registry", str(tiny_house.registry.path)]
    environment = {
        "A_KEY": KEY,
        "AN_UPSTREAM_KEY": UPSTREAM,
        "TRAITROUTE_ADMIN_KEY": ADMIN,
        "TRAITROUTE_ALLOWED_SOURCES": str(tiny_house.folder),
    }
    return RUNNING.enter_context(running_traitroute(command, tiny_house.folder / "gateway.log", environment))
