"""The engine over a server that runs already: adapters are measured where they serve, with no second copy of the model.

Prompts are sent as token ids, so that what is measured is what the other engines measure, and at the lowest
priority, so that a server started with `--scheduling-policy priority` answers its clients first; vLLM passes over the
field otherwise. Likelihoods come from vLLM's `prompt_logprobs`. A server without them gives answers only: its
likelihoods are NaN, and its cells bear another engine's name.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...adapters import Adapter, FinishReason, RefusalError, ServerError
from .completions import CompletionsClient
from .engine import EngineRequest, EngineResult
from .prompts import PromptTokenizer, check_room, room

CONCURRENCY = 4
LOWEST_PRIORITY = 1_000_000
"""Larger is later in vLLM; clients' requests have 0."""
_GREEDY = {"temperature": 0, "repetition_penalty": 1.0}
"""The penalty is said because a model's own generation settings would count otherwise."""

Ids = list[int]
Generated = tuple[str, int, FinishReason]


class OpenAIEngine:
    """An `Engine` over the server of `client`, whose base model's tokenizer lies in `base`.

    `address` says by which model name the server answers as an adapter. `concurrency` requests are under way at a time.

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
        self._prompts = PromptTokenizer(base)
        self._concurrency = concurrency
        self._address = address
        self._priority: dict[str, int] = {"priority": LOWEST_PRIORITY}
        card = client.models()[0]
        self._base_name = str(card["id"])
        told = card.get("max_model_len")
        self._context = told if isinstance(told, int) else None
        self.scores = self._can_score()
        maker = str(card.get("owned_by") or "unknown")
        self.name = f"openai-{maker}" + ("" if self.scores else "-answers")

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`.

        Raises:
            InputError: a prompt is longer, with its answer, than the server's context.
            RefusalError: the server refuses a request, an adapter that it cannot load for instance.
            ServerError: the server went away, or cannot score what only asks for scores.
        """
        if not self.scores and any(r.candidates and not r.max_tokens for r in requests):
            raise ServerError(
                f"{self._client.url} gives no log-probabilities of prompts (prompt_logprobs), so that "
                "candidates cannot be scored there: measure through vLLM, or ask for answers"
            )
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            return list(pool.map(self._run_one, requests))
        finally:
            # After a failure the requests that wait are not sent any more.
            pool.shutdown(cancel_futures=True)

    def check_offered(self, adapter: Adapter) -> None:
        """Check that the server knows the adapter by now, and its name for these weights.

        Raises:
            ServerError: it does not.
        """
        name = self._address(adapter)
        card = next((card for card in self._client.models() if card["id"] == name), None)
        # Our servers tell the weights' digest; for others a name must do.
        if card is None or card.get("root") not in (None, name, adapter.weights_digest):
            lacks = "offers no adapter" if card is None else "has other weights for"
            raise ServerError(
                f"{self._client.url} {lacks} {name!r}: does it follow the registry that this worker reads?"
            )

    def close(self) -> None:
        """Close the connections; the server runs on."""
        self._client.close()

    def _run_one(self, request: EngineRequest) -> EngineResult:
        model = self._base_name if request.adapter is None else self._address(request.adapter)
        prompt = self._prompts.prompt(request.messages)
        candidates = [self._prompts.candidate(c) for c in request.candidates]
        check_room([room(prompt, candidates, request.max_tokens)], self._context)
        text, tokens, reason = self._generate(model, prompt, request.max_tokens)
        # The gold answer of a classification is one of its labels too.
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
        choice = reply["choices"][0]
        stopped = choice["finish_reason"] == "stop"
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        ids: Ids | None = choice.get("token_ids")
        if ids is None:
            return choice["text"], int(reply["usage"]["completion_tokens"]), reason
        # vLLM counts the end-of-turn token among the answer's; the other engines do not.
        ids = ids[:-1] if stopped else ids
        return self._prompts.decode(ids), len(ids), reason

    def _score(self, model: str, prompt: Ids, candidate: Ids) -> float:
        """Sum of natural-log probabilities of the candidate's tokens after the prompt; NaN where none are given."""
        if not self.scores:
            return math.nan
        reply = self._complete(model, prompt + candidate, max_tokens=1, prompt_logprobs=0)
        steps = reply["choices"][0]["prompt_logprobs"][len(prompt) :]
        return math.fsum(s[str(t)]["logprob"] for s, t in zip(steps, candidate, strict=True))

    def _can_score(self) -> bool:
        """Whether the server gives log-probabilities of prompts; some refuse to, others pass the question over."""
        probe = self._prompts.candidate("a b c")
        try:
            reply = self._complete(self._base_name, probe, max_tokens=1, prompt_logprobs=0)
        except RefusalError:
            return False
        return bool(reply["choices"][0].get("prompt_logprobs"))

    def _complete(self, model: str, prompt: Ids, **asked: Any) -> dict[str, Any]:
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
