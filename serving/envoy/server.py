"""The gateway's app with Envoy behind it, and the gRPC server by which Envoy talks to it."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc.aio
from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingRequest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from starlette.applications import Starlette

from ...adapters import InputError, Registry
from ..gateway import GatewayOptions, gateway_app
from .exchange import process
from .forward import Forward

METHOD = "Process"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
MESSAGE_BYTES = 16 * 2**20
"""The largest message from Envoy: a whole body in the mode BUFFERED."""
CALLS = 4096
"""How many requests are looked at at a time."""
GRACE_S = 10.0
"""How long answers that are under way may go on once the server is told to stop."""


@dataclass(frozen=True)
class EnvoyOptions:
    """Where Envoy finds us, with the files of a certificate and its key where it is to speak TLS, and the request
    headers that get the chosen model's name: always, or for adapters alone.
    """

    address: str = "127.0.0.1:9002"
    certificate: Path | None = None
    certificate_key: Path | None = None
    model_headers: tuple[str, ...] = ()
    affinity_headers: tuple[str, ...] = ()


def header_names(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """The names of request headers that `option` gives.

    Raises:
        InputError: one is no name of a header that may be changed.
    """
    for name in given:
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or name.lower() in ("host", "content-length", "authorization"):
            raise InputError(
                f"{option} {name[:64]!r} is no header for a model's name: give one like x-gateway-model-name"
            )
    return tuple(given)


def envoy_app(options: GatewayOptions, envoy: EnvoyOptions, open_registry: Callable[[], Registry]) -> Starlette:
    """Build the app for HTTP: health, metrics and our own routes. While it runs, it also answers Envoy."""
    behind = partial(Forward, model_headers=envoy.model_headers, affinity_headers=envoy.affinity_headers)
    app = gateway_app(replace(options, sends=False), open_registry, behind=behind)
    running = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with running(app), _answering(app, envoy):
            yield

    app.router.lifespan_context = lifespan
    return app


@asynccontextmanager
async def _answering(app: Starlette, envoy: EnvoyOptions) -> AsyncIterator[None]:
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    server = grpc.aio.server(options=limits, maximum_concurrent_rpcs=CALLS)
    handler = grpc.stream_stream_rpc_method_handler(
        process(app), request_deserializer=ProcessingRequest.parse, response_serializer=bytes
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    # It is there on Python's versions that have asyncio, all of ours.
    state = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    try:
        if (credentials := _credentials(envoy)) is None:
            server.add_insecure_port(envoy.address)
        else:
            server.add_secure_port(envoy.address, credentials)
    except RuntimeError as exc:
        raise InputError(f"Envoy cannot be answered on {envoy.address}: is the port in use?") from exc
    await server.start()
    for service in ("", SERVICE):
        await state.set(service, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield
    finally:
        await state.enter_graceful_shutdown()
        await server.stop(GRACE_S)


def _credentials(envoy: EnvoyOptions) -> grpc.ServerCredentials | None:
    if envoy.certificate is None or envoy.certificate_key is None:
        return None
    try:
        pair = (envoy.certificate_key.read_bytes(), envoy.certificate.read_bytes())
    except OSError as exc:
        raise InputError(f"the certificate or its key cannot be read: {exc.strerror}: {exc.filename}") from exc
    return grpc.ssl_server_credentials([pair])
