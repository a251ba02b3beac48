"""The engine over a server that runs already: adapters are measured where they serve, with no second copy of the model.

Prompts are sent as token ids, so that what is measured is what the other engines measure, and at the lowest
priority, so that a server started with `--scheduling-policy priority` answers its clients first; vLLM ignores the
field otherwise. Likelihoods come from vLLM's `prompt_logprobs`. A server without them gives answers only: its
likelihoods are NaN, and its cells carry another engine's name.
"""

import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from ...adapters import Adapter, FinishReason, RefusalError, ServerError
from .completions import Completion, CompletionsClient, served_context
from .engine import EngineRequest, EngineResult, PromptTokenizer

CONCURRENCY = 4
LOWEST_PRIORITY = 1_000_000
"""Larger is later in vLLM; clients' requests have 0."""
NOT_OF_THE_PROMPT = frozenset({401, 403, 404, 405})
"""The key is wrong, or the server answers no completions at all."""
ENDING_S = 1.0
"""So long requests that are under way are waited for when another has failed."""
_GREEDY = {"temperature": 0, "repetition_penalty": 1.0}
"""The penalty is sent because a model's own generation settings would count otherwise."""

Ids = list[int]
Generated = tuple[str, int, FinishReason]
_T = TypeVar("_T")
_R = TypeVar("_R")
_PROBE = [0, 0]
"""Tokens that every model has: a tokenizer may make more than its model knows."""
_DIGEST = re.compile("[0-9a-f]{64}$")


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
        asked = [pool.submit(ask, one) for one in each]
        try:
            return [future.result() for future in asked]
        finally:
            # After a failure the requests that wait are not sent any more, and those that are under way get a moment:
            # a connection that opens while its client closes stays open.
            pool.shutdown(wait=False, cancel_futures=True)
            wait([future for future in asked if future.running()], ENDING_S)

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
