"""`traitroute gateway` and `serve-extproc`: routing in front of other servers, which we or Envoy send requests to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import InputError, Location, Registry
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath, WebOrigins, secret

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ..serving.gateway import GatewayOptions


def gateway(
    upstream: Annotated[
        list[str], typer.Option("--upstream", "-u", help="A server's URL, with or without /v1; repeatable.")
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
        typer.Option(help="How upstreams may be made to load adapters they lack: none, vllm, sglang, lorax or ray."),
    ] = "none",
    weights: Annotated[
        Path | None, typer.Option(help="The weight store as the upstreams see it; by default at the same path.")
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many adapters an upstream computes with at a time (vLLM: its --max-loras). With --load and "
            "TRAITROUTE_LOAD_COST, ties go to adapters that an upstream holds.",
        ),
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that clients must present.")
    ] = None,
    upstream_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that upstreams are given.")
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
        from ..serving.gateway import gateway_app
        from ..serving.http.server import serve_app
    except ImportError as exc:
        raise ImportError("the gateway needs an extra: pip install 'traitroute[gateway]'") from exc

    options = _gateway_options(
        registry,
        upstream,
        alias,
        load=load,
        weights=weights,
        slots=slots,
        key_env=key_env,
        upstream_key_env=upstream_key_env,
        cors_origin=cors_origin,
    )
    app: ASGIApp = gateway_app(options, lambda: Registry.open(registry, read_only=True))
    servers = ", ".join(options.upstreams)
    console.print(f"routing in front of {servers} on http://{host}:{port}/v1", highlight=False)
    # The access log would hold query strings; dates and server names are the upstreams' to give.
    serve_app(app, host=host, port=port, access_log=False, server_header=False, date_header=False)


def _gateway_options(
    registry: Location,
    upstream: Sequence[str],
    alias: Sequence[str] | None,
    *,
    load: str = "none",
    weights: Path | None = None,
    slots: int | None = None,
    key_env: str | None,
    upstream_key_env: str | None,
    cors_origin: Sequence[str] | None,
) -> "GatewayOptions":
    """What the command line says of the servers behind, checked against the registry."""
    from ..serving.gateway import GatewayOptions, Load, parse_aliases, upstream_urls
    from ..serving.http.addresses import read_origins
    from ..serving.http.tenants import TenantsFile
    from ..serving.state import BASE

    if load not in set(Load):
        raise InputError(f"--load {load!r} is not a way to load: wanted {', '.join(Load)}")
    key = secret("--key-env", key_env)
    options = GatewayOptions(
        upstreams=upstream_urls(upstream),
        aliases=parse_aliases(alias or ()),
        load=Load(load),
        weights=weights,
        slots=slots,
        key=key,
        upstream_key=secret("--upstream-key-env", upstream_key_env),
        origins=read_origins(cors_origin or (), keyed=bool(key or TenantsFile.from_environment())),
    )
    # Opened once here, so that a mistake ends the command and does not show at the first request.
    with Registry.open(registry, read_only=True) as store:
        known = {adapter.name for adapter in store.adapters()}
    if unknown := options.aliases.keys() - known - {BASE}:
        raise InputError(
            f"--alias {min(unknown)}=...: {registry} holds no such adapter; it holds "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    return options


def serve_extproc(
    upstream: Annotated[
        list[str],
        typer.Option("--upstream", "-u", help="A server behind Envoy, asked which adapters it has; repeatable."),
    ],
    registry: RegistryPath = DEFAULT_REGISTRY,
    host: Annotated[str, typer.Option(help="Address to listen on, for Envoy and for HTTP.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Where Envoy talks to us, by gRPC.")] = 9002,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Health, metrics and our own routes, by HTTP.")] = 8080,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="ADAPTER=NAME: the servers' name of an adapter, or with base=NAME of the base model."),
    ] = None,
    model_header: Annotated[
        list[str] | None,
        typer.Option(
            help="A request header that gets the chosen model's name, as endpoint pickers read it; repeatable."
        ),
    ] = None,
    affinity_header: Annotated[
        list[str] | None,
        typer.Option(help="The same for requests that an adapter answers, and never for the base model's; repeatable."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, for TLS between Envoy and us.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that clients must present.")
    ] = None,
    upstream_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that the servers behind Envoy are given.")
    ] = None,
    cors_origin: WebOrigins = None,
) -> None:
    """Route `"model": "auto"` for Envoy, and for what is built on it (llm-d, AIBrix, Envoy Gateway).

    An external processor (ext_proc): Envoy shows it each request, and sends on what it says. docs/envoy.md has Envoy's
    side of it, and what answers while this is down.

    Example:

        traitroute serve-extproc --upstream http://pool:8000 --model-header x-gateway-model-name
    """
    try:
        from ..serving.envoy import EnvoyOptions, envoy_app, header_names
        from ..serving.http.server import serve_app
    except ImportError as exc:
        raise ImportError("routing for Envoy needs an extra: pip install 'traitroute[envoy]'") from exc

    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key go together: give both, or neither")
    options = _gateway_options(
        registry,
        upstream,
        alias,
        key_env=key_env,
        upstream_key_env=upstream_key_env,
        cors_origin=cors_origin,
    )
    envoy = EnvoyOptions(
        f"{host}:{grpc_port}",
        certificate=tls_cert,
        certificate_key=tls_key,
        model_headers=header_names("--model-header", model_header or ()),
        affinity_headers=header_names("--affinity-header", affinity_header or ()),
    )
    app: ASGIApp = envoy_app(options, envoy, lambda: Registry.open(registry, read_only=True))
    console.print(
        f"routing for Envoy on {envoy.address} (gRPC); health on http://{host}:{port}/health", highlight=False
    )
    serve_app(app, host=host, port=port, access_log=False, server_header=False, date_header=False)
