"""A transformers model in this process, on GPU where there is one, with the attention that suits the machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...adapters import AdapterFiles, BaseModelError, WeightsError
from .precision import Precision, fastest_precision


@dataclass(frozen=True)
class LocalModel:
    """A causal language model; `ends` are the tokens that end an answer."""

    model: Any
    device: str
    precision: Precision
    ends: tuple[int, ...]

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for, in tokens; None where it does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)


def open_local_model(base: Path, precision: Precision | None = None) -> LocalModel:
    """Load the model in the folder `base`; `precision` is by default the fastest one here.

    Raises:
        BaseModelError: `base` holds no causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from .attention import keeps_all_keys, use_grouped_attention

    cuda = torch.cuda.is_available()
    precision = precision or fastest_precision()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=getattr(torch, precision),
            **({} if cuda else {"attn_implementation": "eager"}),
        )
    except (OSError, ValueError) as exc:
        raise BaseModelError(f"{base} holds no causal language model: {exc}") from exc
    device = "cuda" if cuda else "cpu"
    model.to(device).eval()
    if not cuda and keeps_all_keys(model):
        use_grouped_attention(model)
    ends = model.generation_config.eos_token_id
    ends = (ends,) if isinstance(ends, int) else tuple(ends or ())
    return LocalModel(model, device, precision, ends)


def peft_config(files: AdapterFiles) -> Any:
    """PEFT's configuration of an adapter, made of what was read off its tensors: PEFT runs patterns as it finds them."""
    from peft import IA3Config, LoraConfig

    kind = IA3Config if files.method == "ia3" else LoraConfig
    return kind(**files.peft_settings(), inference_mode=True)


def load_weights(model: Any, folder: Path, name: str, device: str) -> None:
    """Load the weights in `folder` into the adapter `name` that `model`, a model of PEFT's, has already.

    Raises:
        WeightsError: not all of them have a place there, which PEFT passes over.
    """
    result = model.load_adapter(str(folder), name, torch_device=device)
    if lost := sorted([*result.unexpected_keys, *result.missing_keys]):
        raise WeightsError(
            f"its tensors are not those of this base model's layers, {lost[0]} for one, and a part of an adapter is none"
        )
