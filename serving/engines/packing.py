"""Linear layers whose weights lie as the processor's matrix units read them.

PyTorch keeps a weight row by row, and the libraries beneath it rearrange it in every call. For a few rows, as in
decoding, that costs as much as the product. Inductor rearranges it once when it freezes a model; so do we, by the same
operators, without compiling. A single row alone gains nothing (docs/decisions.md).
"""

from typing import Any

import torch


class PackedLinear(torch.nn.Module):
    """A linear layer for inference with its weight rearranged; it cannot be trained, saved or adapted."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # No parameter: what lies so can be neither copied nor read.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")


def is_packable(model: Any) -> bool:
    """Whether `model` is on a processor for which oneDNN has kernels of its precision."""
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if model.dtype == torch.float32:
        return torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return model.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack(model: Any) -> None:
    """Pack the linear layers of `model`, one by one, so that there need be no room for all twice."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            # Subclasses compute in their own way.
            if type(layer) is torch.nn.Linear:
                setattr(parent, name, PackedLinear(layer))
