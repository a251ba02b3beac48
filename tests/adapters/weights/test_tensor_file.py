"""A safetensors file of a stranger's: bounded, read in constant memory, and every tensor of it a LoRA's."""

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import WeightsError, inspect_adapter

WriteLora = Callable[..., Path]
WEIGHTS = "adapter_model.safetensors"
Q = "model.layers.0.self_attn.q_proj"
STEM = f"base_model.model.{Q}"
ONES = np.ones((8, 8), np.float32)


def pack(header: Any, data: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def entry(start: int = 0, end: int = 4, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 4 * 2**20 + 1) + b" " * 100,
        pack(b"\xff\xfe{}"),
        pack(b"[]"),
        pack(b" {}"),
        pack(b'{"a": ' * 20_000),
        pack({"a": []}),
        pack({"a": {"dtype": "F32"}}, bytes(4)),
        pack({"a": entry(shape=[True])}, bytes(4)),
        pack({"a": entry(shape=[1.0])}, bytes(4)),
        pack({"a": entry(shape=[-1, -1])}, bytes(4)),
        pack({"a": entry(shape=[2**62, 4])}, bytes(4)),
        pack({"a": entry(shape=[1] * 100)}, bytes(4)),
        pack({"a": entry(shape="1")}, bytes(4)),
        pack({"a": entry(4, 0)}, bytes(4)),
        pack({"a": entry(0, 8)}, bytes(8)),
        pack({"a": entry(4, 8)}, bytes(8)),
        pack({"a": entry(), "b": entry()}, bytes(4)),
        pack({"a": entry()}, bytes(3)),
        pack({"a": entry()}, bytes(5)),
        pack(b'{"a": %b, "a": %b}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    ],
)
def test_a_header_that_does_not_describe_its_file_is_refused(write_lora: WriteLora, data: bytes) -> None:
    folder = write_lora({Q: 2})
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(WeightsError, match="truncated or corrupt") as refusal:
        inspect_adapter(folder)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3", "\x1b[31m", ["F32"], None])
def test_a_number_format_that_is_not_known_is_refused(write_lora: WriteLora, dtype: Any) -> None:
    folder = write_lora({Q: 2})
    (folder / WEIGHTS).write_bytes(pack({"a": entry(dtype=dtype)}, bytes(4)))
    with pytest.raises(WeightsError, match="save it as float32") as refusal:
        inspect_adapter(folder)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "a" * 60_000,
        "a" * 201,
        "a" + ".a" * 24,
        "\x1b[2J",
        "a..b",
        ".",
        "",
        "q_proj!",
        "--host=x",
        "q\u0660",
    ],
)
def test_a_name_that_is_not_plain_is_refused_at_once(write_lora: WriteLora, name: str) -> None:
    folder = write_lora({Q: 2})
    (folder / WEIGHTS).write_bytes(pack({name: entry()}, bytes(4)))
    since = time.monotonic()
    with pytest.raises(WeightsError, match="cannot name a tensor") as refusal:
        inspect_adapter(folder)
    assert time.monotonic() - since < 1
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500


def test_tensors_without_end_are_refused_before_they_are_parsed(write_lora: WriteLora) -> None:
    folder = write_lora({Q: 2})
    (folder / WEIGHTS).write_bytes(pack(b'{"a":[' + b"[]," * 2**20 + b"[]]}"))
    since = time.monotonic()
    with pytest.raises(WeightsError, match="more than 10000 tensors"):
        inspect_adapter(folder)
    assert time.monotonic() - since < 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{STEM}.lora_A.default.weight", r"take '.default' out of the keys"),
        (f"{Q}.lora_A.weight", "does not begin with 'base_model.model.'"),
        ("base_model.model.model.embed_tokens.weight", "save_embedding_layers=False"),
        (f"{STEM}.weight", "is no matrix of a LoRA"),
        (f"{STEM}.lora_A.bias", "is no matrix of a LoRA"),
        (f"{STEM}.lora_magnitude_vector", "is no matrix of a LoRA"),
        (f"{STEM}.token_adapter.trainable_tokens_delta", "is no matrix of a LoRA"),
        ("base_model.model.lora_A.weight", "is no matrix of a LoRA"),
    ],
)
def test_one_tensor_that_is_no_loras_is_refused_with_the_cure(write_lora: WriteLora, name: str, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        inspect_adapter(write_lora({Q: 2}, others={name: ONES}))


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        ({"A": (2, 8)}, "has lora_A alone"),
        ({"B": (8, 2)}, "has lora_B alone"),
        ({"A": (2, 8), "B": (8, 3)}, "lora_A of rank 2 and lora_B of rank 3"),
        ({"A": (2, 8, 1), "B": (8, 2, 1)}, "two dimensions"),
        ({"A": (0, 8), "B": (8, 0)}, "ranks from 1 to 512"),
        ({"A": (513, 1), "B": (1, 513)}, "ranks from 1 to 512"),
        ({"A": (2, 0), "B": (8, 2)}, "takes 0 features to 8"),
    ],
)
def test_the_two_matrices_of_a_layer_belong_together(
    write_lora: WriteLora, sides: dict[str, tuple[int, ...]], why: str
) -> None:
    stem = "base_model.model.model.layers.1.self_attn.q_proj"
    others = {f"{stem}.lora_{side}.weight": np.ones(s, np.float32) for side, s in sides.items()}
    with pytest.raises(WeightsError, match=why):
        inspect_adapter(write_lora({Q: 2}, others=others))


def test_an_embedding_is_a_layer_like_others(write_lora: WriteLora) -> None:
    stem = "base_model.model.model.embed_tokens.lora_embedding_"
    others = {f"{stem}A": np.ones((2, 64), np.float32), f"{stem}B": np.ones((8, 2), np.float32)}
    files = inspect_adapter(write_lora({Q: 2}, others=others, target_modules=["q_proj", "embed_tokens"]))
    layer = files.layers["model.embed_tokens"]
    assert (layer.features_in, layer.features_out, layer.embedding) == (64, 8, True)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_nan_or_infinity_is_noticed_anywhere(write_lora: WriteLora, kind: Any, bad: float) -> None:
    values = np.full((8, 2**18), np.finfo(kind).max, kind)
    stem = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    others = {f"{stem}A.weight": values, f"{stem}B.weight": np.ones((8, 8), kind)}
    folder = write_lora({Q: 2}, others=others, r=2, rank_pattern={"layers.1.self_attn.q_proj": 8})
    assert inspect_adapter(folder).rank == 8
    values[5, 70_000] = bad
    folder = write_lora({Q: 2}, others=others, r=2, rank_pattern={"layers.1.self_attn.q_proj": 8})
    with pytest.raises(WeightsError, match=r"layers.1.self_attn.q_proj.lora_A.weight holds NaN"):
        inspect_adapter(folder)


_PEAK = """
import resource, sys
from pathlib import Path
from traitroute.adapters import WeightStore
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
store = WeightStore(Path(sys.argv[2]))
before = peak()
digest = store.add(Path(sys.argv[1])).digest
store.verify(digest)
print(peak() - before)
"""


@pytest.mark.slow
def test_weights_are_checked_and_copied_in_constant_memory(write_lora: WriteLora, tmp_path: Path) -> None:
    folder = write_lora({Q: 2}, target_modules=["q_proj"])
    stem, size = f"{STEM}.lora_", 2**26
    header = {
        f"{stem}A.weight": entry(0, size, [2, size // 4], "BF16"),
        f"{stem}B.weight": entry(size, 2 * size, [size // 4, 2], "BF16"),
    }
    with (folder / WEIGHTS).open("wb") as file:
        file.write(pack(header))
        file.truncate(file.tell() + 2 * size)
    command = [sys.executable, "-c", _PEAK, str(folder), str(tmp_path / "store")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # The file takes 128 MiB.
    assert grown < 32 * 2**20
