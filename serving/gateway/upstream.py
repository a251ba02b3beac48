"""One server behind the gateway: whether it answers, which models it has and how busy it is.

A listed name is believed only as far as it can be checked. A card whose root is a folder of the weight store shows the
weights' digest. For any other name only the operator knows what it stood for when the upstream was started; once the
registry has new weights for it, it is not used any more.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from ...adapters import Adapter, InputError
from ...adapters.adapter import served_name
from ..engines.probe import Distribution, Effect
from ..http.addresses import proxy_of, public
from ..http.errors import error_text
from ..loading import LoadError
from ..proof import Proof, Prover
from ..slots import Recent
from ..state import AUTO, BASE
from .cards import Card, given_names, read_cards
from .dialects import Dialect, dialect
from .options import GatewayOptions, Load
from .probing import TEXT_ONLY, next_tokens

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
_NO_API = (
    "the upstream has no API to load it: start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, SGLang with "
    "--enable-lora"
)
_logger = logging.getLogger(__name__)
Headers = list[tuple[bytes, bytes]]


class NotSentError(Exception):
    """No connection was made, so the request may go to another upstream."""


class Upstream:
    """One server; `outstanding` counts the requests it has not finished.

    `base` is its name of the base model; `others` are the models it lists that are no adapters of the registry.
    `recent` are the adapters that it was last asked for through this gateway.
    """

    def __init__(self, url: str, options: GatewayOptions, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url
        self.healthy = False
        self.reason = "not asked yet"
        self.outstanding = 0
        self.base: str | None = None
        self.dialect: Dialect = dialect(options.load, None)
        self.cards: Mapping[str, Card] = {}
        self.others: Mapping[str, Card] = {}
        self.recent = Recent(options.slots or 1)
        self._url = httpx.URL(url)
        self._load, self._aliases = options.load, options.aliases
        self._own_headers = {"authorization": f"Bearer {options.upstream_key}"} if options.upstream_key else {}
        self._adapters: Sequence[Adapter] = ()
        self._withheld: Collection[str] | None = None
        self._names: dict[str, str] = {}
        # The digests that names stood for when they were first listed.
        self._pins: dict[str, str] = {}
        self._misses = 0
        self._forget_proofs()
        proxy = proxy_of(url) if transport is None else None
        self._through = f" through the proxy {public(proxy)}" if proxy else ""
        self._client = _client(proxy, transport)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def offer(self, adapters: Sequence[Adapter], withheld: Collection[str]) -> None:
        """Replace the adapters that the registry offers, and the names of those that it withholds."""
        self._adapters, self._withheld = adapters, withheld
        self._match_names()

    def name_of(self, adapter: Adapter) -> str | None:
        """The name by which this server has exactly this adapter, or None."""
        return self._names.get(adapter.name)

    def proof(self, adapter: Adapter) -> Proof | None:
        """Whether this server applies the adapter; None before it was asked."""
        found = self._found.get(adapter.weights_digest)
        return None if found is None else Proof.of(adapter, found)

    async def prove(self, adapter: Adapter) -> Proof:
        """Find out whether this server applies the adapter, by asking it and its base model for the probe."""
        name = self.name_of(adapter)
        found: Effect | str = "it does not say which of its models is the base model"
        if self.base is not None and name is not None:
            prover = self._prover
            found = await prover.read(self.dialect.fields(name, self.base))
            if self._text_only and isinstance(found, Effect) and not found.is_shown:
                found = "the server gives no log-probabilities, and its texts are alike"
            if prover is not self._prover:
                found = "the server went away meanwhile"
        self._found[adapter.weights_digest] = found
        return Proof.of(adapter, found)

    def other_fields(self, model: str) -> dict[str, Any] | None:
        """The body's fields that ask for `model`, which is no adapter of the registry; None where it is not listed.

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
                response = await self._client.get(f"{self.url}/v1/models", headers=self._own_headers)
        except (httpx.HTTPError, TimeoutError) as exc:
            self._missed(exc)
            return
        if response.status_code in (404, 405):
            # A server without this list can still answer.
            self._up({})
        elif response.status_code != 200:
            self.down(f"GET /v1/models{self._through} answered {response.status_code}")
        else:
            self._up(read_cards(response.content))

    def down(self, reason: str) -> None:
        """Take the server out of rotation until it answers a check, and forget its models."""
        if self.healthy or self.reason != reason:
            _logger.warning("upstream %s is out of rotation: %s", self.url, reason)
        self.healthy, self.reason = False, reason
        self.cards = {}
        self.recent.clear()
        self._forget_proofs()
        self._match_names()

    def forget(self, adapter: Adapter) -> None:
        """Treat the adapter as absent until the next check lists it."""
        name = self._names.pop(adapter.name, None)
        self.cards = {k: card for k, card in self.cards.items() if k != name}
        self._match_names()

    async def load(self, adapter: Adapter, path: str) -> None:
        """Have the server load the weights that it sees at `path`.

        Raises:
            LoadError: it has no way to, or refuses; the message does not hold the path.
            NotSentError: it does not answer.
        """
        if self.dialect.asked_as is not None:
            await self._load_by_asking(adapter, path, self.dialect.asked_as)
            return
        if self.dialect.load_path is None:
            raise LoadError(f"{adapter.name}: no upstream has it, and --load allows none to load it")
        # New weights get a new name. No adapter's own name holds an `@`, so it is never another adapter's.
        name = f"{adapter.name}@{adapter.weights_digest[:12]}"
        response = await self._told(adapter, self.dialect.load_path, {"lora_name": name, "lora_path": path})
        # Another gateway may have loaded it meanwhile, so what counts is whether it is listed now.
        await self.check()
        if self.name_of(adapter) is None:
            why = _NO_API if response.status_code in (404, 405) else _refusal(response, path)
            if response.is_success and name in self.cards:
                why = f"the upstream lists {name}, but not with the folder of its weights as root"
            raise LoadError(f"{adapter.name}: {why}")

    async def _load_by_asking(self, adapter: Adapter, path: str, asked_as: Callable[[Adapter, str, str], str]) -> None:
        if self.base is None:
            raise LoadError(f"{adapter.name}: the upstream does not say which of its models is the base model")
        name = asked_as(adapter, path, self.base)
        wanted = {**self.dialect.fields(name, self.base), "prompt": adapter.name, "max_tokens": 1}
        response = await self._told(adapter, "/v1/completions", wanted)
        if not response.is_success:
            raise LoadError(f"{adapter.name}: {_refusal(response, path)}")
        self._names[adapter.name] = name

    async def _told(self, adapter: Adapter, path: str, body: Mapping[str, Any]) -> httpx.Response:
        try:
            return await self._client.post(self.url + path, json=body, headers=self._own_headers, timeout=LOAD_S)
        except _NOT_SENT as exc:
            raise self._not_sent(exc) from exc
        except httpx.HTTPError as exc:
            raise LoadError(f"{adapter.name}: {type(exc).__name__} while loading it") from exc

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Count a request as outstanding."""
        self.outstanding += 1
        try:
            yield
        finally:
            self.outstanding -= 1

    async def send(self, method: str, target: bytes, headers: Headers, content: bytes | None) -> httpx.Response:
        """Send a request and return its response, unread, as soon as its headers have arrived.

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
            raise self._not_sent(exc) from exc

    def _forget_proofs(self) -> None:
        """A server that was started anew may apply what it did not, and not what it did."""
        self._prover: Prover[Mapping[str, Any]] = Prover(self._ask)
        self._found: dict[str, Effect | str] = {}
        self._text_only = False

    async def _ask(self, fields: Mapping[str, Any] | None, text: str) -> Distribution:
        given = await next_tokens(self._post, fields or {"model": self.base}, text)
        self._text_only |= TEXT_ONLY in given
        return given

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return await self._client.post(self.url + path, json=body, headers=self._own_headers)

    def _not_sent(self, exc: httpx.TransportError) -> NotSentError:
        if isinstance(exc, httpx.PoolTimeout):
            return NotSentError(f"{self.url} has no connection free")
        self.down(f"no connection{self._through}: {type(exc).__name__}")
        return NotSentError(f"{self.url} takes no connection{self._through}")

    def _missed(self, exc: Exception) -> None:
        self._misses += 1
        late = isinstance(exc, TimeoutError | httpx.ReadTimeout)
        if not (late and self.healthy) or self._misses >= MISSES:
            self.down(f"GET /v1/models{self._through}: {type(exc).__name__}")

    def _up(self, cards: Mapping[str, Card]) -> None:
        if not self.healthy:
            _logger.info("upstream %s is in rotation", self.url)
        elif cards == self.cards:
            # As at nearly every check; matching names walks through all adapters.
            self._misses = 0
            return
        self.healthy, self.reason, self._misses = True, "", 0
        self.cards = cards
        owner = next((card.owned_by for card in cards.values()), None)
        self.dialect = dialect(self._load, owner)
        self._match_names()

    def _match_names(self) -> None:
        """Work out which listed names stand for the adapters and the base model."""
        self._pin()
        by_digest = {digest: name for name, card in self.cards.items() if (digest := self._digest(card))}
        # What others are built upon is a base model, whatever an adapter is called.
        bases = {card.parent for card in self.cards.values()}
        trusted = {n for n, card in self.cards.items() if self._digest(card) is None and n not in bases}
        names: dict[str, str] = {}
        for adapter in self._adapters:
            if name := by_digest.get(adapter.weights_digest) or self._trusted_name(adapter, trusted):
                names[adapter.name] = name
        if self.dialect.asked_as is not None:
            # They are not listed, and stay good: new weights have a new path or digest.
            digests = {a.name: a.weights_digest for a in self._adapters}
            names = {a: p for a, p in self._names.items() if p.endswith(digests.get(a, "\0"))} | names
        self._names = names
        unrelated = self._unrelated()
        self.base = self._base_name(unrelated)
        # Until the registry was read nobody knows which of them may be served.
        self.others = {} if self._withheld is None else unrelated

    def _pin(self) -> None:
        """Remember what names stood for when first listed; a name that vanishes may come back for other weights."""
        if AUTO in self.cards:
            # A server with TraitRoute inside keeps its names at the registry's newest weights by itself.
            self._pins = {}
            return
        self._pins = {name: digest for name, digest in self._pins.items() if name in self.cards}
        for adapter in self._adapters:
            for name in self._given(adapter.name):
                if name in self.cards:
                    self._pins.setdefault(name, adapter.weights_digest)

    def _trusted_name(self, adapter: Adapter, trusted: Collection[str]) -> str | None:
        """The listed name that stands for the adapter's weights by the operator's word, where no root shows it."""
        digest = adapter.weights_digest
        names = self._given(adapter.name)
        return next((name for name in names if name in trusted and self._pins.get(name, digest) == digest), None)

    def _digest(self, card: Card) -> str | None:
        """The digest of the weights behind a listed name; names say it where nobody but the operator gives any."""
        return card.digest or (card.named_digest if self._load is Load.NONE else None)

    def _given(self, adapter: str) -> tuple[str, ...]:
        """The names under which an operator may have put an adapter here."""
        names = given_names(adapter, self._aliases)
        if self.dialect.is_prefixed:
            names += tuple(f"{base}:{adapter}" for base in self.cards if ":" not in base)
        return names

    def _unrelated(self) -> dict[str, Card]:
        """The listed models that have nothing to do with the registry's past and present adapters.

        An adapter is asked for by its own name only, so that the registry has a say: disabled and removed ones are not
        reachable by another name. `cook@…`, `tiny:cook` and `Cook:7b` are all names of `cook`.
        """
        adapters = {*self._aliases, *(self._withheld or ()), *(a.name for a in self._adapters)} - {BASE}
        taken = {served_name(name) for a in adapters for name in given_names(a, self._aliases)}
        return {
            name: card
            for name, card in self.cards.items()
            if self._digest(card) is None and taken.isdisjoint({served_name(name), *re.split("[:@]", name.casefold())})
        }

    def _base_name(self, unrelated: Mapping[str, Card]) -> str | None:
        """The upstream's name of the base model, or None where the listing leaves it open."""
        given = self._aliases.get(BASE, ())
        expected = dict.fromkeys((*given, *(adapter.base_model for adapter in self._adapters)))
        if listed := next((name for name in expected if name in self.cards), None):
            return listed
        if given:
            # Some servers list nothing, and some of the hosted ones not everything.
            return given[0]
        roots = [c for c in unrelated.values() if c.parent is None and c.id != AUTO]
        if len({card.root or card.id for card in roots}) == 1:
            return roots[0].id
        return "" if self._load is Load.LORAX else None


def _client(proxy: str | None, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """The HTTP client of one upstream; a `transport` is asked in place of the network.

    Raises:
        InputError: the proxy's address is none, or of a kind that httpx cannot use.
    """
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
            limits=_LIMITS,
            follow_redirects=False,
            proxy=proxy,
            transport=transport,
            trust_env=False,
            verify=httpx.create_ssl_context(),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as exc:
        # Their messages hold the address, and its password.
        raise InputError(
            f"the proxy {public(proxy or '')} of the environment cannot be used ({type(exc).__name__}): wanted "
            "http://HOST:PORT or https://HOST:PORT, or no proxy for this server by NO_PROXY"
        ) from None


def _refusal(response: httpx.Response, path: str) -> str:
    """Why an upstream did not load an adapter, in one short line without the path."""
    line = error_text(response.content).replace(path, "its weights").partition("\n")[0][:160]
    return f"the upstream did not load it ({response.status_code}): {line}"
