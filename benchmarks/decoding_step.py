"""What a decoding step of the embedded engine takes: heads that share keys asked one by one, asked together, and then
with packed weights too.

    python benchmarks/decoding_step.py [--base FILE.gguf]

The same model and prompts in one process on one thread, all ways by turns: the median of the steps, in milliseconds
of processor, since other work may share the machine.
"""

import argparse
import copy
import time
from collections.abc import Mapping
from statistics import median
from typing import Any, get_args

import torch
from torch.nn.functional import scaled_dot_product_attention
from traitroute.profiling.base_model import PACKAGED, open_base_model
from traitroute.profiling.profile import quiet_libraries
from traitroute.serving.engines.decoding import GROUPED_ATTENTION, advance, prefill
from traitroute.serving.engines.local_model import Precision, open_local_model
from traitroute.serving.engines.packing import is_packable, pack
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

PRECISIONS = get_args(Precision)
STEPS = 8
ONE_BY_ONE = "one_by_one"

Way = tuple[Any, str]
"""A model and how it attends."""


def one_by_one(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention as PyTorch does it, each head by itself."""
    output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=PACKAGED)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[50, 400])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    given = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    AttentionInterface.register(ONE_BY_ONE, one_by_one)
    AttentionMaskInterface.register(ONE_BY_ONE, eager_mask)
    base = open_base_model(given.base)
    for precision in given.precision:
        model = open_local_model(base.path, precision).model
        ways: dict[str, Way] = {"one by one": (model, ONE_BY_ONE), "together": (model, GROUPED_ATTENTION)}
        if is_packable(model):
            packed = copy.deepcopy(model)
            pack(packed)
            ways["packed too"] = (packed, GROUPED_ATTENTION)
        for rows in given.rows:
            for tokens in given.tokens:
                took = {name: median(times) for name, times in step_times(ways, rows, tokens).items()}
                text = ", ".join(f"{name} {each:.0f}" for name, each in took.items())
                print(f"{precision}, {rows} rows after {tokens} tokens, ms a step: {text}", flush=True)


@torch.inference_mode()
def step_times(ways: Mapping[str, Way], rows: int, tokens: int) -> dict[str, list[float]]:
    """Milliseconds of processor of each step, by the way it was made."""
    prompts = torch.randint(100, 1000, (rows, tokens), generator=torch.Generator().manual_seed(0)).tolist()
    took: dict[str, list[float]] = {name: [] for name in ways}
    turns = list(ways) * (STEPS + 1)
    batch = prefill(next(iter(ways.values()))[0], prompts, room=len(turns))
    for turn, name in enumerate(turns):
        model, attention = ways[name]
        model.set_attn_implementation(attention)
        start = time.process_time()
        batch = advance(model, batch, batch.logits.argmax(dim=-1))
        if turn >= len(ways):
            took[name].append(1000 * (time.process_time() - start))
    return took


if __name__ == "__main__":
    main()
