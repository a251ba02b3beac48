"""The engine over a server that runs already: adapters are measured where they serve, with no second copy of the model.

Prompts are sent as token ids, so that what is measured is what the other engines measure, and at the lowest
priority, so that a server started with `--scheduling-policy priority` answers its clients first; vLLM ignores the
field otherwise. Likelihoods come from vLLM's `prompt_logprobs`. A server without them gives answers only: its
likelihoods are NaN, and its cells carry another engine's name.
"""

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from ...adapters import Adapter, FinishReason, RefusalError, ServerError
from ..http.addresses import server_url
from ..http.errors import error_text
from .engine import EngineRequest, EngineResult, PromptTokenizer

CONCURRENCY = 4
LOWEST_PRIORITY = 1_000_000
"""Larger is later in vLLM; clients' requests have 0."""
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed; all others are final."""
NOT_OF_THE_PROMPT = frozenset({401, 403, 404, 405})
"""The key is wrong, or the server answers no completions at all."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
QUIET_S, SAY_EVERY_S = 5.0, 60.0
"""A server that is away is spoken of after so long, and then so often."""
_GREEDY = {"temperature": 0, "repetition_penalty": 1.0}
"""The penalty is sent because a model's own generation settings would count otherwise."""

Ids = list[int]
Generated = tuple[str, int, FinishReason]
_T = TypeVar("_T")
_R = TypeVar("_R")
GATEWAY_BASE = "base"
"""How our gateway lists the base model of the servers behind it, which answers under its own name."""
_PROBE = [0, 0]
"""Tokens that every model has: a tokenizer may make more than its model knows."""
_DIGEST = re.compile("[0-9a-f]{64}$")


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
            return f"status {response.status_code}: {_message(response)}", _retry_after(response)
        if not response.is_success:
            raise RefusalError(
                f"{self.url}{path} refused the request with status {response.status_code}: {_message(response)}",
                status=response.status_code,
            )
        try:
            reply = response.json()
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise ServerError(f"{self.url}{path} answered with something that is no JSON object")
        return reply, 0.0


def served_context(card: Mapping[str, Any]) -> int | None:
    """The longest sequence that a server's model takes, in tokens, by its card; None where that does not say."""
    context = card.get("max_model_len")
    return context if isinstance(context, int) else None


def _message(response: httpx.Response) -> str:
    """The server's error message, in one short line."""
    return " ".join(error_text(response.content).split())[:200]


def _retry_after(response: httpx.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_PAUSE_S) if given.isdecimal() else 0.0


class OpenAIEngine:
    """An `Engine` over the server of `client`, whose base model's tokenizer lies in `base`.

    `address` gives the model name by which the server knows an adapter; `concurrency` requests are sent at a time.

    Raises:
        ServerError: the server is away.
    """

    def __init__(
        self,
        client: CompletionsClient,
        base: Path,
        *,
        concurrency: int = CONCURRENCY,
        address: Callable[[Adapter], str] = lambda adapter: adapter.name,
    ) -> None:
        self._client = client
        self._tokenizer = PromptTokenizer(base)
        self._concurrency = concurrency
        self._address = address
        self._priority: dict[str, int] = {"priority": LOWEST_PRIORITY}
        card = client.models()[0]
        self._base_name = str(card["id"])
        self._context = served_context(card)
        self.scores = self._can_score()
        maker = str(card.get("owned_by") or "unknown")
        self.name = f"openai-{maker}" + ("" if self.scores else "-answers")

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`.

        Raises:
            InputError: a prompt is longer, with its answer, than the server's context.
            RefusalError: the server refuses a request, for instance for an adapter that it cannot load.
            ServerError: the server went away, or cannot score requests that ask for scores alone.
        """
        if not self.scores and any(r.candidates and not r.max_tokens for r in requests):
            raise ServerError(
                f"{self._client.url} gives no log-probabilities of prompts (prompt_logprobs), so that "
                "candidates cannot be scored there: measure through vLLM, or ask for answers"
            )
        return self._in_threads(self._run_one, requests)

    def _in_threads(self, ask: Callable[[_T], _R], each: Sequence[_T]) -> list[_R]:
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            return list(pool.map(ask, each))
        finally:
            # After a failure the requests that wait are not sent any more, and those that are under way not waited for.
            pool.shutdown(wait=False, cancel_futures=True)

    def check_offered(self, adapter: Adapter) -> None:
        """Check that the server offers the adapter by now, with these weights.

        Raises:
            ServerError: it does not.
        """
        if lacking := self.lacking([adapter]):
            raise ServerError(
                f"{self._client.url} {lacking[adapter.name]} {self._address(adapter)!r}: does it follow the registry "
                "that this worker reads?"
            )

    def lacking(self, adapters: Sequence[Adapter]) -> dict[str, str]:
        """Which of `adapters` the server does not offer with these weights, and what it does with their names."""
        cards = {card["id"]: card for card in self._client.models()[1:]}
        found = {}
        for adapter in adapters:
            name = self._address(adapter)
            if name not in cards:
                found[adapter.name] = "offers no adapter"
            elif (root := _DIGEST.search(str(cards[name].get("root")))) and root[0] != adapter.weights_digest:
                # Our servers show the weights' digest as root, and vLLM the folder; for others a name must do.
                found[adapter.name] = "has other weights for"
        return found

    def refused(self, adapters: Sequence[Adapter]) -> dict[str, str]:
        """Which of `adapters` the server refuses to answer with, and why, by a request of one token for each.

        Raises:
            ServerError: the server went away.
        """

        def why(adapter: Adapter) -> str | None:
            try:
                self._complete(self._address(adapter), _PROBE, max_tokens=1)
            except RefusalError as exc:
                return str(exc)
            return None

        reasons = self._in_threads(why, adapters)
        return {a.name: reason for a, reason in zip(adapters, reasons, strict=True) if reason is not None}

    def count_tokens(self, text: str) -> tuple[int, int | None]:
        """How many tokens the base model's tokenizer here makes of `text`, and the server; None where it does not say.

        Raises:
            RefusalError: the server refuses whatever it is asked.
            ServerError: it went away.
        """
        here = len(self._tokenizer.tokenizer(text)["input_ids"])
        try:
            return here, self._complete(self._base_name, text, max_tokens=1).usage.prompt_tokens
        except RefusalError as exc:
            if exc.status in NOT_OF_THE_PROMPT:
                raise
            return here, None

    def close(self) -> None:
        """Close the connections; the server runs on."""
        self._client.close()

    def _run_one(self, request: EngineRequest) -> EngineResult:
        model = self._base_name if request.adapter is None else self._address(request.adapter)
        [tokenized] = self._tokenizer.tokenize_all([request], context=self._context)
        prompt, candidates = tokenized.prompt, tokenized.candidates
        text, tokens, reason = self._generate(model, prompt, request.max_tokens)
        # The gold answer of a classification is one of its labels too, and is scored once.
        scores = {c: self._score(model, prompt, list(c)) for c in dict.fromkeys(map(tuple, candidates))}
        return EngineResult(
            text=text,
            output_tokens=tokens,
            finish_reason=reason,
            log_likelihoods=tuple(scores[tuple(c)] for c in candidates),
            candidate_tokens=tuple(map(len, candidates)),
        )

    def _generate(self, model: str, prompt: Ids, max_tokens: int) -> Generated:
        if not max_tokens:
            return "", 0, FinishReason.STOP
        reply = self._complete(model, prompt, max_tokens=max_tokens, return_token_ids=True)
        choice, ids = reply.choice, reply.choice.token_ids
        if choice.finish_reason not in ("stop", "length"):
            # A server that is stopped may cut answers short ("abort").
            raise ServerError(
                f"{self._client.url} ended an answer of {model!r} as {choice.finish_reason!r}, neither stop nor length"
            )
        stopped = choice.finish_reason == "stop"
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        if ids is None:
            tokens = reply.usage.completion_tokens
            return choice.text, len(self._tokenizer.candidate(choice.text)) if tokens is None else tokens, reason
        # vLLM counts the end-of-turn token among the answer's; the other engines do not.
        ids = ids[:-1] if stopped else ids
        return self._tokenizer.decode(ids), len(ids), reason

    def _score(self, model: str, prompt: Ids, candidate: Ids) -> float:
        """Sum of natural-log probabilities of the candidate's tokens after the prompt; NaN where none are given."""
        if not self.scores:
            return math.nan
        reply = self._complete(model, prompt + candidate, max_tokens=1, prompt_logprobs=0)
        steps = (reply.choice.prompt_logprobs or [])[len(prompt) :]
        given = [(step or {}).get(str(token)) for step, token in zip(steps, candidate, strict=False)]
        known = [each.logprob for each in given if each is not None]
        if len(known) < len(candidate):
            raise ServerError(
                f"{self._client.url} gave log-probabilities for {len(known)} of {len(candidate)} tokens of an answer"
            )
        return math.fsum(known)

    def _can_score(self) -> bool:
        """Whether the server gives log-probabilities of prompts; some refuse, others ignore the field."""
        try:
            reply = self._complete(self._base_name, _PROBE, max_tokens=1, prompt_logprobs=0)
        except RefusalError:
            return False
        return bool(reply.choice.prompt_logprobs)

    def _complete(self, model: str, prompt: Ids | str, **asked: Any) -> Completion:
        body = {"model": model, "prompt": prompt, **_GREEDY, **asked}
        priority = self._priority
        try:
            return self._client.complete(body | priority)
        except RefusalError as exc:
            # Of several threads that were refused, each asks again.
            if not priority or "priority" not in str(exc):
                raise
            self._priority = {}
        return self._client.complete(body)
