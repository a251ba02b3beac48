"""What is accepted as adapter weights, and what makes two adapters the same."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import AdapterFiles, Layer, WeightsError, inspect_adapter

MakeAdapter = Callable[..., Path]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


LAYER = "model.layers.0.self_attn.q_proj"


def raw_safetensors(dtype: str, shape: list[int], data: bytes) -> bytes:
    """The two tensors of a LoRA of one layer written by hand, for types that numpy lacks; both hold `data`."""
    header = {
        f"base_model.model.{LAYER}.lora_{side}.weight": {
            "dtype": dtype,
            "shape": shape if side == "A" else shape[::-1],
            "data_offsets": [place * len(data), (place + 1) * len(data)],
        }
        for place, side in enumerate("AB")
    }
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + 2 * data


def test_a_sound_adapter_is_described(make_adapter: MakeAdapter) -> None:
    files = inspect_adapter(make_adapter())
    assert files == AdapterFiles(
        digest=files.digest,
        rank=2,
        target_modules=("q_proj", "v_proj"),
        base_model="tiny-llama",
        method="lora",
        config=files.config,
        layers={
            "model.layers.0.self_attn.q_proj": Layer(8, 8, 2),
            "model.layers.0.self_attn.v_proj": Layer(8, 8, 2),
        },
    )
    assert len(files.digest) == 64


def test_a_pattern_as_target_is_read_off_the_tensors(make_adapter: MakeAdapter) -> None:
    folder = make_adapter(target_modules="all-linear")
    assert inspect_adapter(folder).target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    "changes",
    [
        {"base_model_name_or_path": "/moved/elsewhere"},
        {"lora_dropout": 0.1, "inference_mode": True, "peft_version": "9.9"},
        {"target_modules": ["q_proj", "v_proj"]},
        {"use_dora": False, "rank_pattern": {}, "bias": "none", "layers_to_transform": None},
    ],
)
def test_what_does_not_change_the_computation_keeps_the_digest(
    make_adapter: MakeAdapter, changes: dict[str, object]
) -> None:
    digest = inspect_adapter(make_adapter()).digest
    assert inspect_adapter(make_adapter("other", **changes)).digest == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": 8},
        {"use_rslora": True},
        {"bias": "all"},
        {"layers_to_transform": 0},
        {"alpha_pattern": {"q_proj": 1}},
        {"fill": 0.25},
    ],
)
def test_what_changes_the_computation_changes_the_digest(make_adapter: MakeAdapter, changes: dict[str, object]) -> None:
    digest = inspect_adapter(make_adapter()).digest
    assert inspect_adapter(make_adapter("other", **changes)).digest != digest


def test_one_changed_byte_changes_the_digest(make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    digest = inspect_adapter(folder).digest
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-4] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    assert inspect_adapter(folder).digest != digest


def test_the_digest_of_an_adapter_stays_what_it_was(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2.5, "use_rslora": True, "bias": "none"}
    config |= {"target_modules": ["q_proj"], "exclude_modules": ["v_proj", "lm_head"]}
    config |= {"layers_to_transform": [0], "alpha_pattern": {"q_proj": 8}, "lora_dropout": 0.1}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).write_bytes(raw_safetensors("BF16", [1, 2], b"\x80\x3f\x00\x40"))
    # Registries and weight stores hold it.
    pinned = "66491ea8d663ca4a7df1813c90a576991fc6f4c32f0846d8020d2cc7c30188de"
    assert inspect_adapter(tmp_path).digest == pinned


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_pipe_is_not_waited_for(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(WeightsError, match="no plain file"):
        inspect_adapter(folder)


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no adapter folder .*nowhere"):
        inspect_adapter(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_an_absent_file_is_named(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"has no {name}"):
        inspect_adapter(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_symlink_is_refused(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    real = (folder / name).rename(folder / "real")
    (folder / name).symlink_to(real)
    with pytest.raises(WeightsError, match="symbolic link"):
        inspect_adapter(folder)


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "[]", "\xff"])
def test_a_config_that_is_no_json_object_is_refused(make_adapter: MakeAdapter, config: str) -> None:
    folder = make_adapter()
    (folder / CONFIG).write_text(config, encoding="latin-1")
    with pytest.raises(WeightsError, match="JSON"):
        inspect_adapter(folder)


@pytest.mark.parametrize("changes", [{"r": 0}, {"r": None}, {"lora_alpha": float("nan")}])
def test_an_impossible_setting_is_named(make_adapter: MakeAdapter, changes: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match=f"{CONFIG}: {next(iter(changes))}"):
        inspect_adapter(make_adapter(**changes))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter.pt", "adapter.pth", "adapter.ckpt"])
def test_a_pickle_is_refused_with_a_cure(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter()
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(WeightsError, match=f"{name}.*can run code.*safe_serialization"):
        inspect_adapter(folder)


def test_a_pickle_is_never_opened(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter()
    (folder / WEIGHTS).unlink()
    canary = tmp_path / "canary"
    # Unpickling these bytes would create the canary.
    (folder / "adapter_model.bin").write_bytes(f"cos\nmkdir\n(V{canary}\ntR.".encode())
    with pytest.raises(WeightsError):
        inspect_adapter(folder)
    assert not canary.exists()


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_weights_are_refused(make_adapter: MakeAdapter, kept: int) -> None:
    folder = make_adapter()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(WeightsError, match="truncated or corrupt"):
        inspect_adapter(folder)


def test_another_kind_of_adapter_is_refused(make_adapter: MakeAdapter) -> None:
    with pytest.raises(WeightsError, match="'VERA'; 'LORA'"):
        inspect_adapter(make_adapter(peft_type="VERA"))


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(make_adapter: MakeAdapter, fill: float) -> None:
    with pytest.raises(WeightsError, match="NaN or infinity"):
        inspect_adapter(make_adapter(fill=fill))


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80])
def test_bfloat16_is_checked_for_nan_and_infinity(make_adapter: MakeAdapter, bits: int) -> None:
    folder = make_adapter(r=1, target_modules=["q_proj"])
    sound = struct.pack("<2H", 0x3F80, 0x7F7F)
    (folder / WEIGHTS).write_bytes(raw_safetensors("BF16", [1, 2], sound))
    assert inspect_adapter(folder).rank == 1
    (folder / WEIGHTS).write_bytes(raw_safetensors("BF16", [1, 2], struct.pack("<2H", 0x3F80, bits)))
    with pytest.raises(WeightsError, match="NaN or infinity"):
        inspect_adapter(folder)


def test_a_number_format_that_cannot_be_checked_is_refused(make_adapter: MakeAdapter) -> None:
    folder = make_adapter(r=1, target_modules=["q_proj"])
    (folder / WEIGHTS).write_bytes(raw_safetensors("I8", [1, 2], b"ab"))
    with pytest.raises(WeightsError, match="is I8; save it as float32"):
        inspect_adapter(folder)


def test_a_rank_other_than_the_configured_one_is_refused(make_adapter: MakeAdapter) -> None:
    with pytest.raises(WeightsError, match=r"has rank 3, but .* says r = 2"):
        inspect_adapter(make_adapter(rank=3))


def test_a_lora_tensor_without_a_rank_is_refused(make_adapter: MakeAdapter) -> None:
    folder = make_adapter(r=1, target_modules=["q_proj"])
    (folder / WEIGHTS).write_bytes(raw_safetensors("F32", [], bytes(4)))
    with pytest.raises(WeightsError, match="has matrices of the shapes"):
        inspect_adapter(folder)


def test_a_rank_pattern_allows_other_ranks(make_adapter: MakeAdapter) -> None:
    folder = make_adapter(rank=3, rank_pattern={"q_proj": 3, "v_proj": 3})
    assert inspect_adapter(folder).rank == 3


def test_weights_without_lora_tensors_are_refused(make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    data = (folder / WEIGHTS).read_bytes().replace(b"lora_", b"full_")
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(WeightsError, match="no LoRA tensors"):
        inspect_adapter(folder)


def test_an_ia3_adapter_is_read_and_not_served_by_vllm(tmp_path: Path) -> None:
    config = {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    scale = {"base_model.model.layers.0.k_proj.ia3_l": np.ones((4, 1), dtype=np.float32)}
    save_file(scale, tmp_path / "adapter_model.safetensors")
    files = inspect_adapter(tmp_path)
    assert (files.method, files.rank, files.target_modules) == ("ia3", 1, ("k_proj",))
