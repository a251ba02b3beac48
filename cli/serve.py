"""`traitroute serve` and `mcp`: routing in an OpenAI server, and for an agent's questions.

The server is vLLM, or the embedded one where there is no vLLM.
"""

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import Adapter, AdapterState, InputError, Location, Registry, RegistryError
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath, WebOrigins, secret

if TYPE_CHECKING:
    from ..profiling import BaseModelFolder


GRACE_S = 10
"""How long answers that are under way may go on once the embedded server is told to stop."""


class ServingEngine(StrEnum):
    """What computes the answers; auto means vLLM where it is installed."""

    AUTO = "auto"
    VLLM = "vllm"
    TRANSFORMERS = "transformers"


def serve(
    base: Annotated[
        str | None, typer.Argument(help="Base model, a GGUF file too; by default the one in the registry.")
    ] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    engine: Annotated[
        ServingEngine, typer.Option(help="vllm, transformers (this process), or auto: vllm where it is installed.")
    ] = ServingEngine.AUTO,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    max_model_len: Annotated[int, typer.Option(min=1, help="Longest context, in tokens.")] = 2048,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the key that clients must give.")
    ] = None,
    cors_origin: WebOrigins = None,
    max_loras: Annotated[
        int | None, typer.Option(min=1, help="transformers: adapters loaded at a time [default: 8].")
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(
            min=1, help="transformers: requests answered or waiting at a time; more get a 429 [default: 128]."
        ),
    ] = None,
    vllm: Annotated[list[str] | None, typer.Option("--vllm", help="A further `vllm serve` flag; repeatable.")] = None,
) -> None:
    """Serve the base model and all adapters; requests with `"model": "auto"` are routed.

    Examples:

        traitroute serve --port 8000

        traitroute serve --engine transformers --api-key-env TRAITROUTE_API_KEY

        curl -si localhost:8000/v1/chat/completions -H 'content-type: application/json'
        -d '{"model": "auto", "messages": [{"role": "user", "content": "2 + 2?"}]}'
    """
    embedded = _is_embedded(engine)
    _check_options(embedded, max_loras=max_loras, queue=queue, vllm=vllm)
    key = secret("--api-key-env", api_key_env)
    from ..serving.http.addresses import read_origins
    from ..serving.http.tenants import TenantsFile

    # Read once here, so that a mistake ends the command and not a server that is starting.
    tenants = TenantsFile.from_environment()
    keyed = bool(key or tenants or (not embedded and os.environ.get("VLLM_API_KEY")))
    origins = read_origins(cors_origin or (), keyed=keyed)
    model, adapters, left_out = _served(base, registry)
    address = f"http://{host}:{port}/v1"
    for name, why in left_out.items():
        console.print(f"not served: {name}: {why}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"serving {model.name} and {len(adapters)} adapters on {address}", soft_wrap=True)
    if not embedded:
        from ..serving.vllm import serve_command, serve_environment

        command = serve_command(
            model.path,
            adapters,
            host=host,
            port=port,
            max_model_len=max_model_len,
            options=[*_allowed(origins), *(vllm or ())],
        )
        environment = serve_environment(registry, model.path, base_digest=model.digest)
        # In the environment, for other users of the machine can read a command line.
        environment |= {"VLLM_API_KEY": key} if key else {}
        os.execvpe(command[0], command, environment)
        return
    from ..serving.embedded import EmbeddedOptions, open_app

    options = EmbeddedOptions(
        max_loras=max_loras or EmbeddedOptions.max_loras,
        max_model_len=max_model_len,
        queue=queue or EmbeddedOptions.queue,
        api_key=key,
        origins=origins,
    )
    name = model.path.name if Path(model.name).is_dir() else model.name
    app = open_app(model.path, registry, name=name, base_digest=model.digest, options=options)
    from ..serving.http.server import serve_app

    serve_app(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE_S)


def _is_embedded(engine: ServingEngine) -> bool:
    installed = find_spec("vllm") is not None
    if engine is ServingEngine.VLLM and not installed:
        raise ImportError("serving with vLLM needs vLLM: pip install 'traitroute[serve]', or use --engine transformers")
    if engine is ServingEngine.AUTO and not installed:
        console.print("vLLM is not installed: serving with transformers in this process")
    return engine is ServingEngine.TRANSFORMERS or not installed


def _check_options(embedded: bool, *, max_loras: int | None, queue: int | None, vllm: Sequence[str] | None) -> None:
    if embedded and vllm:
        raise InputError("--vllm gives flags to `vllm serve`, but this is --engine transformers")
    if not embedded and (max_loras or queue):
        raise InputError(
            "--max-loras and --queue are for --engine transformers; vLLM takes its own: --vllm --max-loras=N"
        )


def _allowed(origins: Sequence[str]) -> list[str]:
    """vLLM's own flag for the origins of web pages."""
    return [f"--allowed-origins={json.dumps(origins)}"] if origins else []


def _served(base: str | None, registry: Location) -> "tuple[BaseModelFolder, list[Adapter], dict[str, str]]":
    """The base model to serve, the adapters for it as they are stored, and why others are left out, by their names."""
    from ..profiling import open_base_model
    from ..serving.vllm.options import as_stored

    with Registry.open(registry, read_only=True) as store:
        adapters, weights = store.servable(), store.weights
    # One that was never measured may be wrong about everything.
    adapters.sort(key=lambda adapter: adapter.state is not AdapterState.READY)
    if base is None and not adapters:
        raise RegistryError(f"{registry} holds no adapters: name the base model to serve")
    model = open_base_model(base or adapters[0].base_model)
    other = [a.name for a in adapters if a.base_digest != model.digest]
    if other and len(other) == len(adapters):
        raise RegistryError(
            f"{', '.join(other)} were trained for {adapters[0].base_model}, not for {model.name} as "
            "it is now: serve that base, or disable them"
        )
    return model, *as_stored(adapters, weights, model.path, model.digest)


def mcp(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Answer an agent's questions about skills over MCP on standard input and output; no model is run.

    The tools: select_skill, plan_skills, list_skills, describe_skill. A running server (`traitroute serve`) answers the
    same at /mcp. In an agent's configuration:

        {"mcpServers": {"traitroute": {"command": "traitroute", "args": ["mcp", "--registry", "traitroute.db"]}}}
    """
    from ..serving.mcp import serve_stdio

    # Opened once now, so that a mistake in the registry ends the command and not the first question.
    Registry.open(registry, read_only=True).close()
    serve_stdio(lambda: Registry.open(registry, read_only=True))
