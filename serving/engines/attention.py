"""Attention over grouped keys on CPUs, where each key head serves several query heads.

Transformers copies keys and values out to every query head whenever there is a mask, because CUDA kernels
need it. The CPU kernel takes groups as they are: one decoding step over 300 tokens (9 heads on 3) costs a
fifth of the eager one (docs/decisions.md).
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import eager_mask

NAME = "grouped_cpu"


def keeps_all_keys(model: Any) -> bool:
    """Whether every layer keeps all keys, behind the attention interface that takes masks of ours.

    Only then may tokens of several candidates share a cache and a mask; models with sliding windows,
    recurrent layers or attention of their own do not qualify.
    """
    layers = DynamicCache(config=model.config).layers
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and len(layers) > 0
        and all(type(layer) is DynamicLayer for layer in layers)
    )


def use_grouped_attention(model: Any) -> None:
    """Let `model` attend with `grouped_attention` where transformers knows that SDPA fits it."""
    if not getattr(model, "_supports_sdpa", False):
        return
    AttentionInterface.register(NAME, grouped_attention)
    # An additive mask: the kernel would convert a boolean one again in every layer.
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from `query` (batch, heads, tokens, size) to `key` and `value` with fewer heads."""
    output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None
