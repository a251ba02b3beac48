"""Small GGUF files, written as llama.cpp's converters write them: a Llama of one layer that reads bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, FEED_FORWARD, CONTEXT = 32, 2, 64, 256
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def write_gguf(
    file: Path,
    *,
    architecture: str | None = "llama",
    tied: bool = True,
    without: str = "none",
    stated: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a model without the tensors whose names begin with `without`, and with the fields `stated` beside."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(file, architecture or "llama")
    if architecture is None:
        del writer.kv_data[0]["general.architecture"]
    for name, value in (stated or {}).items():
        writer.add_string(name, value) if isinstance(value, str) else writer.add_uint16(name, value)
    tokens = _tokens()
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(seed)
    for name, shape in _shapes(len(tokens), tied).items():
        if name.startswith(without):
            continue
        values = random.normal(0, 0.1, shape).astype(np.float32) if len(shape) > 1 else np.ones(shape, np.float32)
        if len(shape) > 1:
            writer.add_tensor(name, quantize(values, kind := GGMLQuantizationType.Q8_0), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tokens() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [*bytes_to_unicode().values(), "he", "<|end|>"]


def _shapes(tokens: int, tied: bool) -> dict[str, tuple[int, ...]]:
    block = "blk.0."
    return {
        "token_embd.weight": (tokens, WIDTH),
        **({} if tied else {"output.weight": (tokens, WIDTH)}),
        "output_norm.weight": (WIDTH,),
        f"{block}attn_norm.weight": (WIDTH,),
        f"{block}ffn_norm.weight": (WIDTH,),
        **{f"{block}attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        f"{block}ffn_gate.weight": (FEED_FORWARD, WIDTH),
        f"{block}ffn_up.weight": (FEED_FORWARD, WIDTH),
        f"{block}ffn_down.weight": (WIDTH, FEED_FORWARD),
    }
