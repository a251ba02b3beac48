"""The offline vLLM engine: the base model and all adapters in one engine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters import Adapter, FinishReason, WeightStore
from ..engines.engine import EngineRequest, EngineResult, PromptTokenizer
from .options import CPU_VARIABLES, PRIVACY_VARIABLES, as_stored, engine_options, on_cpu

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

MAX_MODEL_LEN = 4096


class VllmEngine:
    """An `Engine` over vLLM, with room for `adapters`; in bfloat16, except where a CPU computes float32 faster."""

    def __init__(self, base: Path, weights: WeightStore, adapters: Sequence[Adapter]) -> None:
        self._cpu = on_cpu()
        # The engine's own process reads these when it starts.
        for name, value in (PRIVACY_VARIABLES | (CPU_VARIABLES if self._cpu else {})).items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            from vllm import LLM
        except ImportError as exc:
            raise ImportError(
                "the vLLM engine needs vLLM: pip install 'traitroute[serve]', or use the "
                "embedded engine (--engine transformers)"
            ) from exc
        self._weights = weights
        self._prompts = PromptTokenizer(base)
        options: dict[str, Any] = {"dtype": "bfloat16"}
        stored, _ = as_stored(adapters, weights, base)
        options |= engine_options(stored, max_model_len=MAX_MODEL_LEN)
        self.name = f"vllm-{options['dtype']}-{'cpu' if self._cpu else 'cuda'}"
        self._llm: Any = LLM(model=str(base), **options)

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`; adapters share batches, base has its own on CPUs (`options`)."""
        groups = [list(range(len(requests)))]
        if self._cpu:
            groups = [[i for i in groups[0] if (requests[i].adapter is None) is base] for base in (True, False)]
        results: dict[int, EngineResult] = {}
        for group in filter(None, groups):
            answers = self._run_group([requests[i] for i in group])
            results |= dict(zip(group, answers, strict=True))
        return [results[i] for i in range(len(requests))]

    def close(self) -> None:
        """Stop the engine process and free the model."""
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None

    def _run_group(self, requests: list[EngineRequest]) -> list[EngineResult]:
        tokenized = self._prompts.tokenize_all(requests, context=MAX_MODEL_LEN)
        prompts, candidates = [t.prompt for t in tokenized], [t.candidates for t in tokenized]
        scores = self._score(requests, prompts, candidates)
        outputs = self._generate(requests, prompts)
        return [
            EngineResult(
                text=self._prompts.decode(tokens),
                output_tokens=len(tokens),
                finish_reason=reason,
                log_likelihoods=tuple(row_scores),
                candidate_tokens=tuple(map(len, row_candidates)),
            )
            for (tokens, reason), row_scores, row_candidates in zip(outputs, scores, candidates, strict=True)
        ]

    def _generate(
        self, requests: list[EngineRequest], prompts: list[list[int]]
    ) -> list[tuple[list[int], FinishReason]]:
        from vllm import SamplingParams

        outputs: list[tuple[list[int], FinishReason]] = [([], FinishReason.STOP)] * len(requests)
        asked = [i for i, r in enumerate(requests) if r.max_tokens]
        done = self._call(
            [prompts[i] for i in asked],
            [SamplingParams(temperature=0, max_tokens=requests[i].max_tokens) for i in asked],
            [requests[i].adapter for i in asked],
        )
        for i, output in zip(asked, done, strict=True):
            answer = output.outputs[0]
            stopped = answer.finish_reason == "stop"
            tokens = list(answer.token_ids)
            # vLLM counts the end-of-turn token among the answer's; the embedded engine does not.
            outputs[i] = (tokens[:-1], FinishReason.STOP) if stopped else (tokens, FinishReason.LENGTH)
        return outputs

    def _score(
        self, requests: list[EngineRequest], prompts: list[list[int]], candidates: list[list[list[int]]]
    ) -> list[list[float]]:
        """Log-likelihood of every candidate, from the log-probabilities of prompt + candidate."""
        from vllm import SamplingParams

        pairs = [(row, c) for row, cs in enumerate(candidates) for c in cs]
        done = self._call(
            [prompts[row] + c for row, c in pairs],
            [SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)] * len(pairs),
            [requests[row].adapter for row, _ in pairs],
        )
        scores: list[list[float]] = [[] for _ in candidates]
        for (row, c), output in zip(pairs, done, strict=True):
            steps = output.prompt_logprobs[len(prompts[row]) :]
            scores[row].append(float(sum(step[token].logprob for step, token in zip(steps, c, strict=True))))
        return scores

    def _call(self, prompts: list[list[int]], sampling: list[Any], adapters: list[Adapter | None]) -> list[Any]:
        if not prompts:
            return []
        return self._llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            sampling,
            use_tqdm=False,
            lora_request=[self._lora(a) for a in adapters],
        )

    def _lora(self, adapter: Adapter | None) -> "LoRARequest | None":
        from vllm.lora.request import LoRARequest

        if adapter is None:
            return None
        path = str(self._weights.path(adapter.weights_digest))
        return LoRARequest(adapter.name, adapter.serving_id, path)
