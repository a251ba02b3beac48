"""The base model's loss on a data set before any training, and the gradient that a fresh adapter would get.

The gradient is the mean over examples for rank-8 LoRAs on every q_proj and v_proj, with a seeded A and B = 0, of which
only B has a gradient. Each example's gradient is scaled to length 1 first, since short answers have much larger ones,
and a seeded sparse projection keeps 512 numbers of the mean: the gradient datastore of LESS (arXiv 2402.04333), for
plain gradient descent and without its warm-up training. Gradients can be compared where base model and seed are the
same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...adapters import BaseModelError
from ...serving.engines.engine import PromptTokenizer
from ...serving.engines.local_model import fastest_precision
from ..base_model import BaseModelFolder
from ..tasks.task import Example

Array = NDArray[np.float64]

MAX_TOKENS = 256
"""Tokens read of an example: the answer's first half as many, and the end of the prompt before it."""
LOSSES, GRADIENTS = 32, 16
"""Examples of a dataset whose loss, and of these whose gradient, is taken."""
RANK = 8
MODULES = ("q_proj", "v_proj")
WIDTH = 512


@dataclass(frozen=True)
class LossReading:
    """`nats` (n,): mean negative log-likelihood of an answer's tokens; `gradient` (512,)."""

    nats: Array
    gradient: Array


class LossProbe:
    """A base model with an untrained adapter, loaded when first asked; nothing is ever trained."""

    def __init__(self, base: BaseModelFolder, *, seed: int = 0) -> None:
        self._base = base
        self._seed = seed

    @cached_property
    def prompts(self) -> PromptTokenizer:
        """The base model's tokenizer."""
        return PromptTokenizer(self._base.path)

    def lengths(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Tokens of each text (n,)."""
        return np.array([len(self.prompts.candidate(t)) for t in texts], dtype=np.int32)

    def read(self, examples: Sequence[Example]) -> LossReading:
        """Loss of the first 32 examples and mean gradient of the first 16.

        Raises:
            BaseModelError: the base model cannot be loaded, or has no q_proj and v_proj.
        """
        import torch

        nats, total = [], np.zeros(1)
        for example in examples[:GRADIENTS]:
            losses = self._losses(example)
            total = total + self._unit_gradient(losses.mean())
            nats.append(_answer_mean(losses.detach()))
        with torch.inference_mode():
            nats += [_answer_mean(self._losses(e)) for e in examples[GRADIENTS:LOSSES]]
        mean = total / len(examples[:GRADIENTS])
        return LossReading(np.array(nats), self._project(mean))

    def _losses(self, example: Example) -> Any:
        """Loss of each token of the answer, and of the token that ends the turn."""
        import torch

        ids, first = self._tokens(example)
        tokens = torch.tensor([ids], device=self._model.device)
        logits = self._model(input_ids=tokens).logits[0, first - 1 : -1]
        return torch.nn.functional.cross_entropy(logits.float(), tokens[0, first:], reduction="none")

    def _tokens(self, example: Example) -> tuple[list[int], int]:
        """Token ids, and where the answer begins among them."""
        answer = self.prompts.candidate(example.target)[: MAX_TOKENS // 2]
        end = self.prompts.tokenizer.eos_token_id
        answer = [*answer, *([] if end is None else [end])]
        prompt = self.prompts.prompt(example.messages, example.tools)
        prompt = prompt[-(MAX_TOKENS - len(answer)) :]
        return prompt + answer, len(prompt)

    def _unit_gradient(self, loss: Any) -> Array:
        """Gradient with respect to every B, end to end, of length 1 (0 where there is none)."""
        import torch

        gradients = torch.autograd.grad(loss, self._weights)
        flat = torch.cat([g.float().flatten() for g in gradients]).cpu().numpy().astype(np.float64)
        return flat / (np.linalg.norm(flat) or 1.0)

    def _project(self, gradient: Array) -> Array:
        from sklearn.random_projection import SparseRandomProjection

        projection = SparseRandomProjection(WIDTH, random_state=self._seed)
        row = gradient[None]
        return np.asarray(projection.fit(row).transform(row))[0]

    @cached_property
    def _weights(self) -> list[Any]:
        return [p for p in self._model.parameters() if p.requires_grad]

    @cached_property
    def _model(self) -> Any:
        try:
            import torch
            from peft import LoraConfig, get_peft_model
            from transformers import AutoModelForCausalLM
        except ImportError as exc:
            raise ImportError("forecasts need the extra: pip install 'traitroute[profile]'") from exc
        try:
            model = AutoModelForCausalLM.from_pretrained(self._base.path, dtype=getattr(torch, fastest_precision()))
        except (OSError, ValueError) as exc:
            raise BaseModelError(f"{self._base.path} holds no causal language model: {exc}") from exc
        adapter = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(MODULES))
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            try:
                model = get_peft_model(model, adapter)
            except ValueError as exc:
                raise BaseModelError(
                    f"{self._base.name} has no modules named {' or '.join(MODULES)}, which gradient "
                    f"signatures are taken from: {exc}"
                ) from exc
        for name, weights in model.named_parameters():
            weights.requires_grad_("lora_B" in name)
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _answer_mean(losses: Any) -> float:
    """Mean over the answer without the end of the turn; of the end alone where the answer is empty."""
    kept = losses[:-1] if len(losses) > 1 else losses
    return float(kept.mean())
