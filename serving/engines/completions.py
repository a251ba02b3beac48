"""A client of `/v1/completions` that outlives its server: asked again while that is busy or away.

What the server answers is checked before it is believed: that it is a completion, and of the model that was asked for.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

import httpx
from pydantic import BaseModel, Field, ValidationError

from ...adapters import RefusalError, ServerError
from ..http.addresses import server_url
from ..http.errors import error_text

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed; all others are final."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
QUIET_S, SAY_EVERY_S = 5.0, 60.0
"""A server that is away is spoken of after so long, and then so often."""
GATEWAY_BASE = "base"
"""How our gateway lists the base model of the servers behind it, which answers under its own name."""


class _Step(BaseModel):
    logprob: float


class _Choice(BaseModel):
    text: str
    finish_reason: str | None = None
    token_ids: list[Annotated[int, Field(ge=0)]] | None = None
    prompt_logprobs: list[dict[str, _Step] | None] | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """What is read of a response to a completion request."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage = _Usage()

    @property
    def choice(self) -> _Choice:
        """The first choice; one is asked for."""
        return self.choices[0]


class CompletionsClient:
    """`POST /v1/completions` of one server, retried while it is busy or away, for up to `patience_s` seconds a request.

    `on_wait` is called with the trouble while it lasts. Safe to use from several threads.

    Raises:
        InputError: `url` is not the address of a server.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        patience_s: float = 60.0,
        on_wait: Callable[[str], None] = lambda trouble: None,
    ) -> None:
        self.url = server_url(url, key_option="--api-key-env")
        self.patience_s = patience_s
        self._api_key = api_key
        self._on_wait = on_wait
        self._said_at = -math.inf
        self._adapters: frozenset[str] = frozenset()
        self._closing = threading.Event()
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # A proxy of the environment would see every prompt.
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def models(self) -> list[dict[str, Any]]:
        """The server's cards of `/v1/models`; the base model's is the first.

        Raises:
            ServerError: the server is away, or lists no models.
        """
        listed = self._ask("GET", "/v1/models").get("data")
        if not isinstance(listed, list) or not listed or not all(isinstance(c, dict) and "id" in c for c in listed):
            raise ServerError(f"{self.url}/v1/models lists no model: is it an OpenAI server?")
        self._adapters = frozenset(card["id"] for card in listed if card.get("parent"))
        return listed

    def complete(self, body: Mapping[str, Any]) -> Completion:
        """The response to a completion request.

        Raises:
            RefusalError: the server refuses the request.
            ServerError: it stayed away, answered as another model than the one asked for, or no completion.
        """
        reply = self._ask("POST", "/v1/completions", json=body)
        is_base = body["model"] == GATEWAY_BASE and reply.get("model") not in self._adapters
        if reply.get("model") != body["model"] and not is_base:
            raise ServerError(
                f"{self.url} was asked for {body['model']!r} and answered as {reply.get('model')!r}: "
                "nothing was measured"
            )
        try:
            return Completion.model_validate(reply)
        except ValidationError as exc:
            key = ".".join(map(str, exc.errors()[0]["loc"]))
            raise ServerError(
                f"{self.url}/v1/completions answered with something that is no completion ({key}: "
                f"{exc.errors()[0]['msg']}): is it an OpenAI server?"
            ) from exc

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response to a chat request, by whatever model the server says that it is.

        Raises:
            RefusalError: the server refuses the request.
            ServerError: it stayed away.
        """
        return self._ask("POST", "/v1/chat/completions", json=body)

    def close(self) -> None:
        """Close the connections; requests that wait for the server give up."""
        self._closing.set()
        self._http.close()

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            trouble, wait_s = self._try(method, path, more)
            if isinstance(trouble, dict):
                return trouble
            # Spread out, so that clients turned away together do not come back together.
            wait_s = max(wait_s, pause * random.uniform(0.5, 1.0))
            if time.monotonic() + wait_s > began + self.patience_s:
                raise ServerError(f"{self.url}{path} stayed busy or away for {self.patience_s:g} s: {trouble}")
            self._say(trouble, began)
            if self._closing.wait(wait_s):
                raise ServerError(f"{self.url}{path} was busy or away when this run ended: {trouble}")
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _say(self, trouble: str, began: float) -> None:
        now = time.monotonic()
        if now - began >= QUIET_S and now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            self._on_wait(f"{self.url} is busy or away, and is asked again: {trouble}")

    def _try(self, method: str, path: str, more: dict[str, Any]) -> tuple[dict[str, Any] | str, float]:
        """The response, or why there is none and how many seconds the server asks to wait."""
        try:
            response = self._http.request(method, path, **more)
        except httpx.TransportError as exc:
            return f"{type(exc).__name__}: {exc}", 0.0
        if response.status_code in BUSY:
            return f"status {response.status_code}: {self._message(response)}", _retry_after(response)
        if not response.is_success:
            raise RefusalError(
                f"{self.url}{path} refused the request with status {response.status_code}: {self._message(response)}",
                status=response.status_code,
            )
        try:
            reply = response.json()
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise ServerError(f"{self.url}{path} answered with something that is no JSON object")
        return reply, 0.0

    def _message(self, response: httpx.Response) -> str:
        """The server's error message, in one short line, without the key that it was sent."""
        message = error_text(response.content)
        return " ".join((message.replace(self._api_key, "***") if self._api_key else message).split())[:200]


def served_context(card: Mapping[str, Any]) -> int | None:
    """The longest sequence that a server's model takes, in tokens, by its card; None where that does not say."""
    context = card.get("max_model_len")
    return context if isinstance(context, int) else None


def _retry_after(response: httpx.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_PAUSE_S) if given.isdecimal() else 0.0
