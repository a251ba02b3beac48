"""The embedded engine: transformers in this process, for machines without vLLM and for CPUs.

One adapter at a time is merged into a copy of the base model, because merged weights run at the base model's speed, and
faster where they are packed (`packing.py`); on the CPU build of vLLM an unmerged LoRA made decoding 5 to 9 times slower
than base (docs/decisions.md). Each prompt is run once: its key-value cache serves candidates and generation alike.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...adapters import FinishReason, InputError, WeightStore
from .engine import EngineRequest, EngineResult, PromptTokenizer, TokenizedRequest
from .local_model import Precision, load_weights, open_local_model, peft_config

BATCH = 64
BATCH_TOKENS = 32768
"""Prompt and answer tokens of a batch; bounds the key-value cache held in memory."""


class TransformersEngine:
    """An `Engine` over a local transformers model, on GPU where there is one.

    `precision` is by default the one that this machine computes fastest.
    """

    def __init__(self, base: Path, weights: WeightStore, *, precision: Precision | None = None) -> None:
        local = open_local_model(base, precision)
        self.name = f"transformers-{local.precision}-{local.device}"
        self._tokenizer = PromptTokenizer(base)
        self._weights = weights
        self._base: Any = local.model
        self._device = local.device
        self._ends = local.ends
        self._context = local.context
        self._vocabulary: int = local.model.get_input_embeddings().num_embeddings
        self._merged: tuple[str | None, Any] = (None, None)

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`, grouped by adapter and batched by prompt length.

        Raises:
            InputError: a prompt is longer, with its answer, than the model's context, or holds a token that it lacks.
        """
        tokenized = self._tokenizer.tokenize_all(requests, context=self._context)
        # A GPU that looks one up ends the process.
        if (highest := max((i for t in tokenized for i in t.prompt), default=0)) >= self._vocabulary:
            raise InputError(
                f"the tokenizer makes token {highest} of a prompt, and the model has {self._vocabulary}: they do not "
                "belong together"
            )
        results: dict[int, EngineResult] = {}
        for digest, indices in _by_adapter(requests):
            model = self._model(digest)
            order = sorted(indices, key=lambda i: (tokenized[i].max_tokens, len(tokenized[i].prompt)))
            for batch in _batches(order, tokenized):
                # The scorer reads neighbours together.
                batch.sort(key=lambda i: sum(map(len, requests[i].candidates)))
                answers = self._run_batch(model, [tokenized[i] for i in batch])
                results |= dict(zip(batch, answers, strict=True))
        return [results[i] for i in range(len(requests))]

    def close(self) -> None:
        """Free the model."""
        self._base, self._merged = None, (None, None)

    def _model(self, digest: str | None) -> Any:
        """The base model, or with an adapter's weights in it the last that was asked for."""
        if digest is None:
            return self._base
        if self._merged[0] != digest:
            # Room first.
            self._merged = (None, None)
            self._merged = (digest, self._with(digest))
        return self._merged[1]

    def _with(self, digest: str) -> Any:
        from peft import PeftModel

        from .packing import is_packable, pack

        files, folder = self._weights.verify(digest), self._weights.path(digest)
        peft_model: Any = PeftModel(copy.deepcopy(self._base), peft_config(files), "it")
        load_weights(peft_model, folder, "it", self._device)
        merged = peft_model.merge_and_unload().eval()
        if is_packable(merged):
            pack(merged)
        return merged

    def _run_batch(self, model: Any, requests: list[TokenizedRequest]) -> list[EngineResult]:
        import torch

        from .candidates import TokenTree, score
        from .decoding import greedy, prefill

        limits = [r.max_tokens for r in requests]
        trees = [TokenTree.of(r.candidates) for r in requests]
        room = max(*limits, *(len(t.tokens) for t in trees))
        with torch.inference_mode():
            batch = prefill(model, [r.prompt for r in requests], room=room)
            scores = score(model, batch, trees)
            outputs = greedy(model, batch, limits, self._ends)
        return [self._result(*answer) for answer in zip(outputs, scores, requests, strict=True)]

    def _result(self, tokens: list[int], scores: list[float], request: TokenizedRequest) -> EngineResult:
        unfinished = request.max_tokens and len(tokens) == request.max_tokens
        return EngineResult(
            text=self._tokenizer.decode(tokens),
            output_tokens=len(tokens),
            finish_reason=FinishReason.LENGTH if unfinished else FinishReason.STOP,
            log_likelihoods=tuple(scores),
            candidate_tokens=tuple(map(len, request.candidates)),
        )


def _by_adapter(requests: Sequence[EngineRequest]) -> Iterator[tuple[str | None, list[int]]]:
    def digest(i: int) -> str:
        adapter = requests[i].adapter
        return adapter.weights_digest if adapter else ""

    for key, group in groupby(sorted(range(len(requests)), key=digest), key=digest):
        yield key or None, list(group)


def _batches(order: list[int], requests: Sequence[TokenizedRequest]) -> Iterator[list[int]]:
    """Runs of requests, those that generate up to as many tokens beside each other."""
    batch: list[int] = []
    prompt = answer = 0
    for i in order:
        prompt, answer = max(prompt, len(requests[i].prompt)), max(answer, requests[i].max_tokens)
        if batch and (len(batch) == BATCH or (len(batch) + 1) * (prompt + answer) > BATCH_TOKENS):
            yield batch
            batch, prompt, answer = [], len(requests[i].prompt), requests[i].max_tokens
        batch.append(i)
    if batch:
        yield batch
