"""`traitroute gateway`: routing in front of servers that cannot be changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import InputError, Registry
from .options import DEFAULT_REGISTRY, RegistryPath, WebOrigins, console
from .secrets import secret

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def gateway(
    upstream: Annotated[
        list[str],
        typer.Option("--upstream", "-u", help="A server's URL, with or without /v1; repeatable."),
    ],
    registry: RegistryPath = DEFAULT_REGISTRY,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            help="ADAPTER=NAME: the name under which upstreams have an adapter, or with base=NAME the base "
            "model; repeatable. By default adapters bear their own names."
        ),
    ] = None,
    load: Annotated[
        str,
        typer.Option(help="How upstreams may be made to load adapters they lack: none, vllm, sglang or lorax."),
    ] = "none",
    weights: Annotated[
        Path | None,
        typer.Option(help="The weight store as the upstreams see it; by default at the same path."),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the key that clients must present."),
    ] = None,
    upstream_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the key that upstreams are given."),
    ] = None,
    cors_origin: WebOrigins = None,
) -> None:
    """Route `"model": "auto"` in front of any OpenAI-compatible servers (vLLM, SGLang, LoRAX, Ollama, hosted).

    With `--load vllm` an upstream must see the weight store, run with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True,
    and have **one** API server process: with more, vLLM answers from the wrong adapter. docs/gateway.md says more.

    Example:

        traitroute gateway --upstream http://gpu1:8000 --upstream http://gpu2:8000 --alias math=math-lora-v3

        curl -si localhost:8080/v1/chat/completions -H 'content-type: application/json'
        -d '{"model": "auto", "messages": [{"role": "user", "content": "2 + 2?"}]}'
    """
    try:
        from ..serving.gateway import (
            GatewayOptions,
            Load,
            gateway_app,
            parse_aliases,
            upstream_urls,
        )
        from ..serving.http.addresses import read_origins
        from ..serving.http.server import serve_app
        from ..serving.state import BASE
    except ImportError as exc:
        raise ImportError("the gateway needs an extra: pip install 'traitroute[gateway]'") from exc

    if load not in set(Load):
        raise InputError(f"--load {load!r} is not a way to load: wanted {', '.join(Load)}")
    key = secret("--key-env", key_env)
    options = GatewayOptions(
        upstreams=upstream_urls(upstream),
        aliases=parse_aliases(alias or ()),
        load=Load(load),
        weights=weights,
        key=key,
        upstream_key=secret("--upstream-key-env", upstream_key_env),
        origins=read_origins(cors_origin or (), keyed=key is not None),
    )
    # Opened once here, so that a mistake ends the command and does not show at the first request.
    with Registry.open(registry, read_only=True) as store:
        known = {adapter.name for adapter in store.adapters()}
    if unknown := options.aliases.keys() - known - {BASE}:
        raise InputError(
            f"--alias {min(unknown)}=...: {registry} holds no such adapter; it holds "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    app: ASGIApp = gateway_app(options, lambda: Registry.open(registry, read_only=True))
    servers = ", ".join(options.upstreams)
    console.print(f"routing in front of {servers} on http://{host}:{port}/v1", highlight=False)
    # The access log would hold query strings; dates and server names are the upstreams' to give.
    serve_app(app, host=host, port=port, access_log=False, server_header=False, date_header=False)
