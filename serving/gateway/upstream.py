"""One server behind the gateway: whether it answers, what it has, how busy it is."""

import asyncio
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from ...adapters import Adapter, InputError
from ..http.addresses import proxy_of, public
from ..middleware import AUTO, BASE, LoadError
from .dialects import Dialect, dialect
from .headers import Headers
from .listing import (
    Card,
    base_name,
    given_names,
    listed_name,
    names_by_root,
    others,
    parse_cards,
    runtime_name,
)
from .options import GatewayOptions, Load

CONNECT_S = 5.0
CHECK_S = 5.0
LOAD_S = 120.0
MISSES = 2
"""How many checks in a row a busy server may answer too late before it counts as down."""

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_LIMITS = httpx.Limits(
    max_connections=1024,
    max_keepalive_connections=128,
    # Below the five seconds after which uvicorn, and with it most of these servers, closes an idle connection.
    keepalive_expiry=4.0,
)
_logger = logging.getLogger(__name__)


class NotSentError(Exception):
    """No connection was made, so the request may go elsewhere."""


class Upstream:
    """One server; `outstanding` counts the requests it has not finished."""

    def __init__(self, url: str, options: GatewayOptions) -> None:
        self.url = url
        self.healthy = False
        self.reason = "not asked yet"
        self.outstanding = 0
        self.base: str | None = None
        self.dialect: Dialect = dialect(options.load, None)
        self.cards: Mapping[str, Card] = {}
        self.others: Mapping[str, Card] = {}
        self._url = httpx.URL(url)
        self._load, self._aliases = options.load, options.aliases
        self._key = options.upstream_key
        self._adapters: Sequence[Adapter] = ()
        self._withheld: Collection[str] | None = None
        self._names: dict[str, str] = {}
        self._pins: dict[str, str] = {}
        self._misses = 0
        proxy = proxy_of(url)
        self._through = f" through the proxy {public(proxy)}" if proxy else ""
        self._client = _client(proxy)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def offer(self, adapters: Sequence[Adapter], withheld: Collection[str]) -> None:
        """Take over what the registry offers, and the names of adapters that it does not."""
        self._adapters, self._withheld = adapters, withheld
        self._settle()

    def name_of(self, adapter: Adapter) -> str | None:
        """The name by which this server has exactly this adapter, or None."""
        return self._names.get(adapter.name)

    def other(self, model: str) -> dict[str, Any] | None:
        """What a request's body must say to be answered by a model that is no adapter of the registry; None: nothing.

        Ollama lists `name:latest` of what its clients call `name`.
        """
        if model == self.base:
            return {"model": model}
        name = next((n for n in (model, f"{model}:latest") if n in self.others), None)
        if name is None:
            return None
        adapted = self.others[name].parent is not None
        return self.dialect.fields(name, self.base) if adapted else {"model": name}

    async def check(self) -> None:
        """Ask for the models; the answer decides whether the server is in rotation."""
        try:
            async with asyncio.timeout(CHECK_S):
                response = await self._client.get(self._at("/v1/models"), headers=self._own_headers())
        except (httpx.HTTPError, TimeoutError) as exc:
            self._missed(exc)
            return
        if response.status_code in (404, 405):
            # A server without this list is there all the same.
            self._up({})
        elif response.status_code != 200:
            self.down(f"GET /v1/models{self._through} answered {response.status_code}")
        else:
            self._up(_parsed(response.content))

    def down(self, reason: str) -> None:
        """Take the server out of rotation until it answers a check; what it had is forgotten."""
        if self.healthy or self.reason != reason:
            _logger.warning("upstream %s is out of rotation: %s", self.url, reason)
        self.healthy, self.reason = False, reason
        self.cards = {}
        self._settle()

    def forget(self, adapter: Adapter) -> None:
        """Take the adapter for absent until the next check lists it."""
        name = self._names.get(adapter.name)
        self.cards = {k: card for k, card in self.cards.items() if k != name}
        self._settle()

    async def load(self, adapter: Adapter, path: str) -> None:
        """Have the server load the weights that it sees at `path`.

        Raises:
            LoadError: it has no way to, or refuses; the message does not hold the path.
            NotSentError: it does not answer.
        """
        if self.dialect.by_path:
            self._names[adapter.name] = path
            return
        if self.dialect.load_path is None:
            raise LoadError(f"{adapter.name}: no upstream has it, and --load allows none to load it")
        body = {"lora_name": runtime_name(adapter), "lora_path": path}
        url = self._at(self.dialect.load_path)
        try:
            response = await self._client.post(url, json=body, headers=self._own_headers(), timeout=LOAD_S)
        except _NOT_SENT as exc:
            raise self._unsent(exc) from exc
        except httpx.HTTPError as exc:
            raise LoadError(f"{adapter.name}: {type(exc).__name__} while loading it") from exc
        # Whoever asked first: what counts is whether it is there now.
        await self.check()
        if self.name_of(adapter) is None:
            raise LoadError(f"{adapter.name}: {self._why_not(adapter, response, path)}")

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Count a request as outstanding."""
        self.outstanding += 1
        try:
            yield
        finally:
            self.outstanding -= 1

    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        content: bytes | None,
    ) -> httpx.Response:
        """Send a request and return its response as soon as its headers are there, unread.

        Raises:
            NotSentError: no connection was made; nothing was sent.
            httpx.HTTPError: it went wrong later.
        """
        # Built by hand: the client would add headers of its own, such as one that asks for compression.
        request = httpx.Request(
            method,
            self._url.copy_with(raw_path=self._url.raw_path.rstrip(b"/") + target),
            headers=headers,
            content=content,
            extensions={"timeout": self._client.timeout.as_dict()},
        )
        try:
            return await self._client.send(request, stream=True)
        except _NOT_SENT as exc:
            raise self._unsent(exc) from exc

    def _unsent(self, exc: httpx.TransportError) -> NotSentError:
        if isinstance(exc, httpx.PoolTimeout):
            return NotSentError(f"{self.url} has no connection free")
        self.down(f"no connection{self._through}: {type(exc).__name__}")
        return NotSentError(f"{self.url} takes no connection{self._through}")

    def _why_not(self, adapter: Adapter, response: httpx.Response, path: str) -> str:
        name = runtime_name(adapter)
        if response.is_success and name in self.cards:
            return f"the upstream lists {name}, but not with the folder of its weights as root"
        return _refusal(response, path)

    def _at(self, path: str) -> str:
        return self.url + path

    def _own_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def _missed(self, exc: Exception) -> None:
        self._misses += 1
        late = isinstance(exc, TimeoutError | httpx.ReadTimeout)
        if not (late and self.healthy) or self._misses >= MISSES:
            self.down(f"GET /v1/models{self._through}: {type(exc).__name__}")

    def _up(self, cards: Mapping[str, Card]) -> None:
        if not self.healthy:
            _logger.info("upstream %s is in rotation", self.url)
        elif cards == self.cards:
            # As at nearly every check; to settle walks through all adapters.
            self._misses = 0
            return
        self.healthy, self.reason, self._misses = True, "", 0
        self.cards = cards
        owner = next((card.owned_by for card in cards.values()), None)
        self.dialect = dialect(self._load, owner)
        self._settle()

    def _settle(self) -> None:
        """Work out which names stand for the adapters and the base model."""
        self._pin()
        by_root = names_by_root(self.cards)
        named: dict[str, str] = {}
        for adapter in self._adapters:
            given = listed_name(adapter, self.cards, self._aliases, self._pins)
            if name := by_root.get(adapter.weights_digest) or given:
                named[adapter.name] = name
        if self.dialect.by_path:
            # Paths are not listed, and stay good: new weights have a new path.
            digests = {a.name: a.weights_digest for a in self._adapters}
            kept = {a: p for a, p in self._names.items() if p.endswith(digests.get(a, "\0"))}
            named = kept | named
        self._names = named
        known = {*self._aliases, *(self._withheld or ()), *(a.name for a in self._adapters)}
        strangers = others(self.cards, known - {BASE}, self._aliases)
        self.base = base_name(self._adapters, self.cards, self._aliases, strangers)
        # Without a registry nobody knows which of them may be served.
        self.others = {} if self._withheld is None else strangers
        if self.base is None and self._load is Load.LORAX:
            self.base = ""

    def _pin(self) -> None:
        """Remember what names stood for when first seen; a name that vanishes may stand for something new."""
        if AUTO in self.cards:
            # A server with TraitRoute inside keeps its names at the registry's newest weights by itself.
            self._pins = {}
            return
        self._pins = {name: digest for name, digest in self._pins.items() if name in self.cards}
        for adapter in self._adapters:
            for name in given_names(adapter.name, self._aliases):
                if name in self.cards:
                    self._pins.setdefault(name, adapter.weights_digest)


def _client(proxy: str | None) -> httpx.AsyncClient:
    """The client of one upstream; the environment says by which proxy it is reached, and which certificates hold.

    Raises:
        InputError: the proxy's address is none, or of a kind that httpx cannot use.
    """
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
            limits=_LIMITS,
            follow_redirects=False,
            proxy=proxy,
            trust_env=False,
            verify=httpx.create_ssl_context(),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as exc:
        # Their messages hold the address, and its password.
        raise InputError(
            f"the proxy {public(proxy or '')} of the environment cannot be used ({type(exc).__name__}): wanted "
            "http://HOST:PORT or https://HOST:PORT, or no proxy for this server by NO_PROXY"
        ) from None


def _parsed(content: bytes) -> dict[str, Card]:
    try:
        return parse_cards(json.loads(content))
    except (ValueError, RecursionError):
        return {}


def _refusal(response: httpx.Response, path: str) -> str:
    """One short line of why an upstream did not load an adapter."""
    if response.status_code in (404, 405):
        return (
            "the upstream has no API to load it: start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, "
            "SGLang with --enable-lora"
        )
    message = _message(response).replace(path, "its weights")
    line = next(iter(message.splitlines()), "")[:160]
    return f"the upstream did not load it ({response.status_code}): {line}"


def _message(response: httpx.Response) -> str:
    try:
        body: Any = response.json()
    except ValueError:
        return response.text
    for key in ("error", "message", "error_message", "detail"):
        while isinstance(body, dict) and key in body:
            body = body[key]
    return body if isinstance(body, str) else json.dumps(body)
