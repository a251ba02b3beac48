"""`traitroute serve`: vLLM with routing inside, with the flags that the registry asks for."""

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from ..adapters import Registry, RegistryError
from .options import DEFAULT_REGISTRY, RegistryPath, console


def serve(
    base: Annotated[
        str | None, typer.Argument(help="Base model; by default the one in the registry.")
    ] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    max_model_len: Annotated[int, typer.Option(help="Longest context, in tokens.")] = 2048,
    vllm: Annotated[
        list[str] | None, typer.Option("--vllm", help="A further `vllm serve` flag; repeatable.")
    ] = None,
) -> None:
    """Serve the base model and all adapters; requests with `"model": "auto"` are routed.

    Example:

        traitroute serve --port 8000

        curl -si localhost:8000/v1/chat/completions -H 'content-type: application/json'
        -d '{"model": "auto", "messages": [{"role": "user", "content": "2 + 2?"}]}'
    """
    from ..profiling import open_base_model
    from ..serving.vllm import serve_command, serve_environment

    with Registry.open(registry, read_only=True) as store:
        adapters = store.servable()
    if base is None and not adapters:
        raise RegistryError(f"{registry} holds no adapters: name the base model to serve")
    model = open_base_model(base or adapters[0].base_model)
    if other := [a.name for a in adapters if a.base_digest != model.digest]:
        raise RegistryError(
            f"{', '.join(other)} were trained for {adapters[0].base_model}, not for {model.name} as "
            "it is now: serve that base, or disable them"
        )
    if find_spec("vllm") is None:
        raise ImportError("serving needs vLLM: pip install 'traitroute[serve]'")
    command = serve_command(
        model.path, adapters, host=host, port=port, max_model_len=max_model_len, options=vllm or ()
    )
    console.print(f"serving {model.name} and {len(adapters)} adapters on http://{host}:{port}/v1")
    os.execvpe(command[0], command, serve_environment(registry, model.path))
