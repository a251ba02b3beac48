"""The embedded engine: transformers in this process, for machines without vLLM and for CPUs.

One adapter at a time is merged into a copy of the base model, because merged weights run at the base
model's speed; on the CPU build of vLLM an unmerged LoRA made decoding 5 to 9 times slower than base
(docs/decisions.md). Each prompt is run once: its key-value cache serves candidates and generation alike.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...adapters import BaseModelError, FinishReason, WeightStore
from .engine import EngineRequest, EngineResult
from .prompts import PromptTokenizer

BATCH = 32
SCORE_TOKENS = 4096
"""Candidate tokens scored at once; bounds the logits held in memory (vocabulary x this)."""


class TransformersEngine:
    """An `Engine` over a local transformers model in bfloat16, on GPU where there is one."""

    def __init__(self, base: Path, weights: WeightStore) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        cuda = torch.cuda.is_available()
        self.name = f"transformers-bfloat16-{'cuda' if cuda else 'cpu'}"
        self._prompts = PromptTokenizer(base)
        self._weights = weights
        self._device = "cuda" if cuda else "cpu"
        try:
            self._base: Any = AutoModelForCausalLM.from_pretrained(
                base,
                dtype=torch.bfloat16,
                # On CPUs one query against a long cache is about 1.6 times faster without SDPA.
                attn_implementation="sdpa" if cuda else "eager",
            )
        except (OSError, ValueError) as exc:
            raise BaseModelError(f"{base} holds no causal language model: {exc}") from exc
        self._base.to(self._device).eval()
        self._pad = self._base.generation_config.pad_token_id or 0
        ends = self._base.generation_config.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        self._merged: tuple[str | None, Any] = (None, self._base)

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`, grouped by adapter and batched by prompt length."""
        results: dict[int, EngineResult] = {}
        for adapter_key, indices in _by_adapter(requests):
            model = self._model(adapter_key)
            prompts = {i: self._prompts.prompt(requests[i].messages) for i in indices}
            order = sorted(indices, key=lambda i: (requests[i].max_tokens, len(prompts[i])))
            for batch in _batches(order, requests):
                answers = self._run_batch(
                    model, [requests[i] for i in batch], [prompts[i] for i in batch]
                )
                results |= dict(zip(batch, answers, strict=True))
        return [results[i] for i in range(len(requests))]

    def close(self) -> None:
        """Free the model."""
        self._base, self._merged = None, (None, None)

    def _model(self, digest: str | None) -> Any:
        from peft import PeftModel

        if self._merged[0] != digest:
            self._merged = (None, self._base)
        if digest is not None and self._merged[0] is None:
            folder = self._weights.path(digest)
            peft_model: Any = PeftModel.from_pretrained(copy.deepcopy(self._base), str(folder))
            self._merged = (digest, peft_model.merge_and_unload().eval())
        return self._merged[1]

    def _run_batch(
        self, model: Any, requests: list[EngineRequest], prompts: list[list[int]]
    ) -> list[EngineResult]:
        import torch

        with torch.inference_mode():
            ids, mask = self._left_padded(prompts)
            cache = self._prefill(model, ids, mask)
            candidates = [[self._prompts.candidate(c) for c in r.candidates] for r in requests]
            scores = self._score(model, cache, ids, mask, candidates)
            outputs = self._generate(model, cache, ids, mask, requests[0].max_tokens)
        return [
            self._result(out, s, c, requests[0].max_tokens)
            for out, s, c in zip(outputs, scores, candidates, strict=True)
        ]

    def _left_padded(self, rows: list[list[int]]) -> tuple[Any, Any]:
        import torch

        width = max(map(len, rows))
        ids = [[self._pad] * (width - len(r)) + r for r in rows]
        mask = [[0] * (width - len(r)) + [1] * len(r) for r in rows]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def _prefill(self, model: Any, ids: Any, mask: Any) -> Any:
        """Cache of all prompt tokens but the last, which each continuation runs again."""
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
        if ids.shape[1] > 1:
            model(
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                position_ids=_positions(mask)[:, :-1],
                past_key_values=cache,
                logits_to_keep=1,
            )
        return cache

    def _score(
        self, model: Any, cache: Any, ids: Any, mask: Any, candidates: list[list[list[int]]]
    ) -> list[list[float]]:
        """Log-likelihood of every candidate of every prompt, `SCORE_TOKENS` tokens at a time."""
        pairs = [(row, c) for row, cs in enumerate(candidates) for c in cs]
        pairs.sort(key=lambda p: len(p[1]))
        scores: dict[tuple[int, tuple[int, ...]], float] = {}
        while pairs:
            size = max(1, min(len(pairs), SCORE_TOKENS // max(len(pairs[-1][1]), 1)))
            chunk, pairs = pairs[-size:], pairs[:-size]
            for (row, c), value in zip(
                chunk, self._score_chunk(model, cache, ids, mask, chunk), strict=True
            ):
                scores[row, tuple(c)] = value
        return [[scores[row, tuple(c)] for c in cs] for row, cs in enumerate(candidates)]

    def _score_chunk(
        self, model: Any, cache: Any, ids: Any, mask: Any, chunk: list[tuple[int, list[int]]]
    ) -> list[float]:
        import torch

        rows = torch.tensor([row for row, _ in chunk], device=self._device)
        width = max(1, max(len(c) for _, c in chunk))
        answer = torch.tensor(
            [c + [self._pad] * (width - len(c)) for _, c in chunk], device=self._device
        )
        real = torch.tensor(
            [[1] * len(c) + [0] * (width - len(c)) for _, c in chunk], device=self._device
        )
        branch = copy.deepcopy(cache)
        branch.batch_select_indices(rows)
        last = mask[rows].sum(dim=1, keepdim=True) - 1
        logits = model(
            input_ids=torch.cat([ids[rows, -1:], answer[:, :-1]], dim=1),
            attention_mask=torch.cat([mask[rows], real[:, :-1]], dim=1),
            position_ids=last + torch.arange(width, device=self._device),
            past_key_values=branch,
        ).logits
        values = []
        for row_logits, row_answer, row_real in zip(logits, answer, real, strict=True):
            logp = torch.log_softmax(row_logits.float(), dim=-1)
            picked = logp.gather(1, row_answer[:, None])[:, 0]
            values.append(float((picked * row_real).sum()))
        return values

    def _generate(
        self, model: Any, cache: Any, ids: Any, mask: Any, max_tokens: int
    ) -> list[list[int]]:
        if max_tokens == 0:
            return [[] for _ in ids]
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache if ids.shape[1] > 1 else None,
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return output[:, ids.shape[1] :].tolist()

    def _result(
        self, tokens: list[int], scores: list[float], candidates: list[list[int]], max_tokens: int
    ) -> EngineResult:
        end = next((n for n, t in enumerate(tokens) if t in self._ends), None)
        kept = tokens if end is None else tokens[:end]
        return EngineResult(
            text=self._prompts.decode(kept),
            output_tokens=len(kept),
            finish_reason=FinishReason.LENGTH if end is None and max_tokens else FinishReason.STOP,
            log_likelihoods=tuple(scores),
            candidate_tokens=tuple(map(len, candidates)),
        )


def _by_adapter(requests: Sequence[EngineRequest]) -> Iterator[tuple[str | None, list[int]]]:
    def digest(i: int) -> str:
        adapter = requests[i].adapter
        return adapter.weights_digest if adapter else ""

    for key, group in groupby(sorted(range(len(requests)), key=digest), key=digest):
        yield key or None, list(group)


def _batches(order: list[int], requests: Sequence[EngineRequest]) -> Iterator[list[int]]:
    """Runs of at most `BATCH` requests that generate up to the same number of tokens."""
    for _, group in groupby(order, key=lambda i: requests[i].max_tokens):
        run = list(group)
        yield from (run[i : i + BATCH] for i in range(0, len(run), BATCH))


def _positions(mask: Any) -> Any:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
