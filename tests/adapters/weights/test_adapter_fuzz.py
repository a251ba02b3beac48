"""Hundreds of untrusted adapters: each is refused with a reason, or PEFT loads exactly the layers that were read."""

import json
import struct
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from traitroute.adapters import (
    AdapterFiles,
    WeightsError,
    inspect_adapter,
)
from traitroute.adapters.weights.base_shapes import BaseShapes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SIZES = {
    f"model.layers.{n}.{module}": shape
    for n in range(2)
    for module, shape in {
        "self_attn.q_proj": (48, 48),
        "self_attn.k_proj": (16, 48),
        "self_attn.v_proj": (16, 48),
        "self_attn.o_proj": (48, 48),
        "mlp.gate_proj": (48, 48),
        "mlp.up_proj": (48, 48),
        "mlp.down_proj": (48, 48),
    }.items()
} | {"lm_head": (64, 48), "model.embed_tokens": (48, 64)}
KEYS = (
    *("peft_type", "r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "rank_pattern", "alpha_pattern", "bias", "use_dora", "use_rslora"),
    *("fan_in_fan_out", "modules_to_save", "init_lora_weights", "trainable_token_indices"),
    *("layer_replication", "alora_invocation_tokens", "base_model_name_or_path", "lora_bias"),
)
BAD = (
    *(
        None,
        True,
        0,
        -1,
        2**70,
        1e300,
        "",
        "q_proj",
        "all-linear",
        ".*",
        "(a+)+$",
        "\ud83d",
        "\x1b[2J",
    ),
    *([], {}, ["!", "--host=0.0.0.0"], [1, "a"], [[]], {"zzz": 8}, {".*": 8}, {"q_proj": 2**70}),
    *("x" * 100_000, ["model.layers.0.self_attn.q_proj"], [0], {"q_proj": 1.5}, [0, 1], "IA3"),
)
RENAMED = (
    *(
        ("model.layers.1", "_orig_mod.model.layers.1"),
        ("model.layers", "language_model.model.layers"),
    ),
    *(
        (".weight", ".default.weight"),
        ("q_proj", "k_proj"),
        ("layers.1", "layers.7"),
        ("model.", ""),
    ),
    *(("base_model.model.", ""), ("lora_A", "lora_B"), ("lora_", "full_"), ("self_attn", "attn")),
    *(
        (".lora_A", ".x" * 40 + ".lora_A"),
        ("q_proj", "q" * 60_000),
        ("q_proj", "\x1b[2J"),
        (".", ".."),
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@dataclass
class Lora:
    """A LoRA in memory, to be spoilt and written."""

    config: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]
    cut: int = 0
    flipped: list[tuple[int, int]] = field(default_factory=list)
    before: bytes = b""

    def write(self, folder: Path) -> None:
        header, places, end = {}, [], 0
        for name, (dtype, shape, data) in self.tensors.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
            end += len(data)
            places.append(data)
        head = json.dumps(header).encode()
        data = bytearray(struct.pack("<Q", len(head)) + head + b"".join(places))
        for place, bits in self.flipped:
            data[place % min(len(data), len(head) + 8)] ^= bits
        (folder / WEIGHTS).write_bytes(data[: len(data) - self.cut])
        (folder / CONFIG).write_bytes(self.before + json.dumps(self.config).encode())


def tensor_name(layer: str, side: str) -> str:
    """What PEFT calls one of a layer's two matrices."""
    kind = f"lora_embedding_{side}" if layer.endswith("embed_tokens") else f"lora_{side}.weight"
    return f"base_model.model.{layer}.{kind}"


@st.composite
def sound(draw: st.DrawFn) -> Lora:
    """A LoRA as PEFT saves it, of any layers and ranks, its modules named in any way."""
    modules = sorted({layer.rpartition(".")[2] for layer in SIZES})
    chosen = draw(st.sets(st.sampled_from(modules), min_size=1, max_size=4))
    layers = [layer for layer in SIZES if layer.rpartition(".")[2] in chosen]
    ranks = dict.fromkeys(layers, draw(st.integers(1, 8)))
    config: dict[str, Any] = {"peft_type": "LORA", "r": ranks[layers[0]], "lora_alpha": 4}
    config["base_model_name_or_path"] = "tiny"
    config["use_rslora"] = draw(st.booleans())
    if draw(st.booleans()):
        odd = draw(st.sampled_from(layers))
        ranks[odd] = draw(st.integers(1, 8))
        config["r"] = min(config["r"], max(ranks.values()))
        config["rank_pattern"] = {odd: ranks[odd]}
        config["alpha_pattern"] = {odd.rpartition(".")[2]: 16}
    names = {
        "modules": sorted(chosen),
        "paths": layers,
        "all": "all-linear",
        "pattern": "|".join(layers),
    }
    config["target_modules"] = names[draw(st.sampled_from(sorted(names)))]
    tensors, random = {}, np.random.default_rng(draw(st.integers(0, 99)))
    for layer, rank in ranks.items():
        height, width = SIZES[layer]
        for side, shape in (("A", (rank, width)), ("B", (height, rank))):
            data = random.normal(size=shape).astype(np.float32).tobytes()
            tensors[tensor_name(layer, side)] = ("F32", shape, data)
    return Lora(config, tensors)


@st.composite
def spoilt(draw: st.DrawFn) -> Lora:
    """Such a LoRA with up to three things wrong, or none."""
    lora = draw(sound())
    for kind in draw(st.lists(st.sampled_from(["set", "drop", "rename", "shape", "lose", "bytes"]), max_size=3)):
        names = sorted(lora.tensors)
        if kind == "set":
            lora.config[draw(st.sampled_from(KEYS))] = draw(st.sampled_from(BAD) | json_values)
        elif kind == "drop":
            lora.config.pop(draw(st.sampled_from(KEYS)), None)
        elif kind == "bytes":
            lora.cut = draw(st.sampled_from([0, 1, 4, 64]))
            lora.before = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b" ", b"{", b"\xff\xfe"]))
            lora.flipped = draw(st.lists(st.tuples(st.integers(0, 2**12), st.integers(1, 255)), max_size=2))
        elif names:
            some = draw(st.sampled_from(names) | st.none())
            for name in names if some is None else [some]:
                dtype, shape, data = lora.tensors.pop(name)
                if kind == "rename":
                    old, new = draw(st.sampled_from(RENAMED))
                    lora.tensors[name.replace(old, new)] = (dtype, shape, data)
                elif kind == "shape":
                    shape = draw(st.sampled_from([(), (0,), shape[::-1], (1, *shape), (600, 1)]))
                    value = draw(st.sampled_from([0.0, 1.0, float("nan"), float("-inf")]))
                    data = np.full(shape, value, np.float32).tobytes()
                    lora.tensors[name] = (draw(st.sampled_from(["F32", "I32", "X"])), shape, data)
    return lora


@pytest.fixture(scope="module")
def base(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[embedded]'")
    return tiny.save(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    """It, loaded."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(base)


def read(folder: Path, base: BaseShapes) -> AdapterFiles | None:
    """What is read of an adapter that fits, or None; nothing else, and soon."""
    since = time.thread_time()
    try:
        files = inspect_adapter(folder)
        base.check(files)
    except WeightsError as exc:
        assert str(exc).isprintable()
        assert len(str(exc)) < 1000
        return None
    finally:
        assert time.thread_time() - since < 1
    return files if files.unservable is None else None


def check_loaded(model: Any, files: AdapterFiles, folder: Path) -> None:
    """Check that PEFT makes of the files the layers that were read, no more and no less, with the weights in them."""
    import peft
    import torch
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    loaded = peft.PeftModel(model, peft.LoraConfig(**files.peft_settings()), adapter_name="it")
    try:
        result = loaded.load_adapter(str(folder), "it")
        assert not result.missing_keys
        assert not result.unexpected_keys
        layers = {
            name.removeprefix("base_model.model."): layer
            for name, layer in loaded.named_modules()
            if isinstance(layer, LoraLayer)
        }
        assert {n: layer.r["it"] for n, layer in layers.items()} == {n: layer.rank for n, layer in files.layers.items()}
        saved = load_file(folder / WEIGHTS)
        parameters = dict(loaded.named_parameters())
        for layer in layers:
            for side in "AB":
                name = tensor_name(layer, side)
                held = name.replace(".weight", ".it.weight") if "weight" in name else f"{name}.it"
                assert torch.equal(parameters[held], saved[name])
    finally:
        loaded.unload()


@pytest.mark.slow
@settings(max_examples=40)
@given(sound())
def test_whatever_peft_saves_is_taken(base: Path, model: Any, lora: Lora) -> None:
    with tempfile.TemporaryDirectory() as made:
        lora.write(Path(made))
        files = read(Path(made), BaseShapes.of_folder(base))
        assert files is not None
        check_loaded(model, files, Path(made))


@pytest.mark.slow
@settings(max_examples=250)
@given(spoilt())
def test_whatever_else_is_taken_whole_or_refused(base: Path, model: Any, lora: Lora) -> None:
    with tempfile.TemporaryDirectory() as made:
        lora.write(Path(made))
        read(Path(made), BaseShapes())
        files = read(Path(made), BaseShapes.of_folder(base))
        event("refused" if files is None else "taken")
        if files is not None:
            check_loaded(model, files, Path(made))
