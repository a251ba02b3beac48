"""The ASGI app behind routing where Envoy sends requests: gives each back to Envoy, and takes the answer from there."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from ..gateway.loader import FleetLoader
from ..gateway.options import GatewayOptions
from ..gateway.proxy import request_headers, upstream_authorization
from ..http.body import REQUEST, dump, off_loop
from ..http.errors import RefusedError, error_response
from ..http.tenants import tenant_of
from ..state import BASE
from .exchange import EXCHANGE, Exchange
from .messages import RawHeaders

_OURS = b"x-traitroute-"


class Forward:
    """Names the chosen adapter as the servers behind Envoy call it, in the body and in headers.

    Every request gets the model's name in `model_headers`, and one for an adapter in `affinity_headers` too: what picks
    endpoints by an affinity would send all of base's requests to one of them. A client's own headers of these names are
    taken away.
    """

    def __init__(
        self,
        loader: FleetLoader,
        options: GatewayOptions,
        *,
        keyed: bool,
        model_headers: tuple[str, ...] = (),
        affinity_headers: tuple[str, ...] = (),
    ) -> None:
        self._loader = loader
        self._authorization = upstream_authorization(options, keyed=keyed)
        self._model_headers, self._affinity_headers = (
            tuple(name.lower().encode("ascii") for name in names) for names in (model_headers, affinity_headers)
        )
        base = options.aliases.get(BASE)
        self._base: Mapping[str, Any] = {"model": base[0]} if base else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = scope.get(EXCHANGE)
        if exchange is None:
            message = f"{scope['path'][:200]} is asked through Envoy: this port answers for TraitRoute alone"
            await error_response(404, message)(scope, receive, send)
            return
        request: dict[str, Any] | None = scope.get(REQUEST)
        if request is None and scope.get("method") == "POST" and not tenant_of(scope).may_all:
            refused = RefusedError("the body must be a JSON object that says what is asked for")
            await refused.response()(scope, receive, send)
            return
        headers, parts = request_headers(scope["headers"], authorization=self._authorization), _parts(receive)
        content = None
        if request is not None:
            [(content, _)] = [part async for part in parts]
            headers, content = await self._named(scope["path"], request, headers, content)
        async with asyncio.TaskGroup() as group:
            handing_on = group.create_task(exchange.forward(headers, parts, content=content))
            await _answer(exchange, send)
            handing_on.cancel()

    async def _named(
        self, path: str, request: Mapping[str, Any], headers: RawHeaders, content: bytes
    ) -> tuple[RawHeaders, bytes]:
        asked = request.get("model") or None
        changed = {**request, **self._fields(asked, path)}
        if changed != request:
            content = await off_loop(lambda: dump(changed), content)
        named = str(changed.get("model") or "").encode("utf-8")
        own = {name: named for name in self._model_headers if named}
        if isinstance(asked, str) and self._loader.adapter(asked) is not None:
            own |= dict.fromkeys(self._affinity_headers, named)
        dropped = {*self._model_headers, *self._affinity_headers}
        return [*(h for h in headers if h[0] not in dropped), *own.items()], content

    def _fields(self, model: Any, path: str) -> Mapping[str, Any]:
        """The body's fields by which the servers behind Envoy know the model; none for what they call so themselves."""
        if model != BASE and self._loader.adapter(model) is None:
            return {}
        try:
            targets = self._loader.targets(model, path)
        except RefusedError:
            targets = []
        fields = next((target.fields for target in targets if target.fields), {})
        if model == BASE:
            # While none of them answers us, the last name that was told is better than none.
            self._base = fields or self._base
            return self._base
        return fields


async def _answer(exchange: Exchange, send: Send) -> None:
    if (head := await exchange.answer()) is None:
        return
    status, headers = head
    kept = [h for h in headers if not h[0].startswith(_OURS)]
    await send({"type": "http.response.start", "status": status, "headers": kept})
    async for part, more in exchange.answer_parts():
        await send({"type": "http.response.body", "body": part, "more_body": more})


async def _parts(receive: Receive) -> AsyncIterator[tuple[bytes, bool]]:
    more = True
    while more and (message := await receive())["type"] != "http.disconnect":
        more = message.get("more_body", False)
        yield message.get("body", b""), more
