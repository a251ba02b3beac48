"""What a decoding step of the embedded engine takes, with heads that share keys asked one by one and together.

    python benchmarks/decoding_step.py [--base FILE.gguf]

The same model and prompts in one process on one thread, both ways by turns: the median of the steps, in milliseconds
of processor, since other work may share the machine.
"""

import argparse
import time
from statistics import median
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from traitroute.profiling.base_model import PACKAGED, open_base_model
from traitroute.profiling.profile import quiet_libraries
from traitroute.serving.engines.decoding import GROUPED_ATTENTION, advance, prefill
from traitroute.serving.engines.local_model import open_local_model
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

STEPS = 8
ONE_BY_ONE = "one_by_one"


def one_by_one(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention as PyTorch does it, each head by itself."""
    output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=PACKAGED)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[50, 400])
    given = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    AttentionInterface.register(ONE_BY_ONE, one_by_one)
    AttentionMaskInterface.register(ONE_BY_ONE, eager_mask)
    base = open_base_model(given.base)
    for precision in ("bfloat16", "float32"):
        model = open_local_model(base.path, precision).model
        for rows in given.rows:
            for tokens in given.tokens:
                took = step_times(model, rows, tokens)
                plain, ours = (median(took[way]) for way in (ONE_BY_ONE, GROUPED_ATTENTION))
                print(
                    f"{precision}, {rows} rows after {tokens} tokens: {plain:.0f} ms a step, {ours:.0f} together, "
                    f"{plain / ours:.2f} times",
                    flush=True,
                )


@torch.inference_mode()
def step_times(model: Any, rows: int, tokens: int) -> dict[str, list[float]]:
    """Milliseconds of processor of each step, by the way of attending."""
    prompts = torch.randint(100, 1000, (rows, tokens), generator=torch.Generator().manual_seed(0)).tolist()
    took: dict[str, list[float]] = {ONE_BY_ONE: [], GROUPED_ATTENTION: []}
    batch = prefill(model, prompts, room=2 * STEPS + 2)
    for step in range(2 * STEPS + 2):
        way = list(took)[step % 2]
        model.set_attn_implementation(way)
        start = time.process_time()
        batch = advance(model, batch, batch.logits.argmax(dim=-1))
        if step >= 2:
            took[way].append(1000 * (time.process_time() - start))
    return took


if __name__ == "__main__":
    main()
