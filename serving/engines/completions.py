"""`POST /v1/completions` of a running OpenAI-compatible server: patient with a busy one, never with a refusal."""

import random
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from ...adapters import InputError, RefusalError, ServerError

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed; all others are the server's last word."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0


class CompletionsClient:
    """Asks one server, and asks again while it is busy or away, for up to `patience_s` seconds a request.

    Safe to use from several threads.

    Raises:
        InputError: `url` is no server's.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        patience_s: float = 60.0,
    ) -> None:
        self.url = _checked(url)
        self._patience_s = patience_s
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
            ServerError: the server is away, or has no models to tell.
        """
        listed = self._ask("GET", "/v1/models").get("data")
        if not isinstance(listed, list) or not listed:
            raise ServerError(f"{self.url}/v1/models lists no model: is it an OpenAI server?")
        return listed

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a completion request.

        Raises:
            RefusalError: the server refuses the request.
            ServerError: it stayed away, or answered as another model than the one asked for.
        """
        reply = self._ask("POST", "/v1/completions", json=body)
        if reply.get("model") != body["model"]:
            raise ServerError(
                f"{self.url} was asked for {body['model']!r} and answered as {reply.get('model')!r}: "
                "nothing was measured"
            )
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        until, pause = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            trouble, wait_s = self._try(method, path, more)
            if isinstance(trouble, dict):
                return trouble
            # Several clients that were turned away together should not come back together.
            wait_s = max(wait_s, pause * random.uniform(0.5, 1.0))
            if time.monotonic() + wait_s > until:
                raise ServerError(f"{self.url}{path} stayed busy or away for {self._patience_s:g} s: {trouble}")
            time.sleep(wait_s)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _try(self, method: str, path: str, more: dict[str, Any]) -> tuple[dict[str, Any] | str, float]:
        """The reply, or what stood in its way and how many seconds the server asks to be left alone."""
        try:
            response = self._http.request(method, path, **more)
        except httpx.TransportError as exc:
            return f"{type(exc).__name__}: {exc}", 0.0
        if response.status_code in BUSY:
            return f"status {response.status_code}: {_told(response)}", _retry_after(response)
        if not response.is_success:
            raise RefusalError(
                f"{self.url}{path} refused the request with status {response.status_code}: {_told(response)}",
                status=response.status_code,
            )
        try:
            reply = response.json()
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise ServerError(f"{self.url}{path} answered with something that is no JSON object")
        return reply, 0.0


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        # What stands before an @ may be a password.
        given = url.rpartition("@")[2]
        raise InputError(
            f"{given!r} is not the address of a server: wanted http:// or https://, a host and perhaps a port, as in "
            "http://localhost:8000; keys are given apart"
        )
    return url.rstrip("/").removesuffix("/v1")


def _told(response: httpx.Response) -> str:
    """The server's own words, in one short line."""
    try:
        error = response.json().get("error", {})
        text = str(error.get("message") or error)
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:200]


def _retry_after(response: httpx.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_PAUSE_S) if given.isdecimal() else 0.0
