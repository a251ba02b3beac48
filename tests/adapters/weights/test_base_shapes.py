"""Every layer of an adapter is one of the base model, as far as anything is known of it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import WeightsError, inspect_adapter
from traitroute.adapters.weights.base_shapes import BaseShapes

WriteLora = Callable[..., Path]
Q, K, UP = (f"model.layers.{{}}.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"))


def base(folder: Path, layers: Mapping[str, tuple[int, ...]], **config: Any) -> BaseShapes:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in layers.items()}
    save_file(tensors, folder / "model.safetensors")
    return BaseShapes.of_folder(folder)


@pytest.fixture
def llama(tmp_path: Path) -> BaseShapes:
    """Two layers, and an embedding that is the head too."""
    layers = {layer.format(n): (8, 8) for layer in (Q, K, UP) for n in range(2)}
    return base(tmp_path / "llama", layers | {"model.embed_tokens": (64, 8), "model.norm": (8,)})


@pytest.mark.parametrize(
    "strange",
    [
        "_orig_mod.model.layers.1.self_attn.q_proj",
        "language_model.model.layers.1.self_attn.q_proj",
        "model.language_model.layers.1.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
        "model.layers.1.attn.q_proj",
        "model.layers.01.self_attn.q_proj",
        "model.layers.2.self_attn.q_proj",
        "model.norm",
        "q_proj",
    ],
)
def test_one_layer_that_the_base_model_lacks_is_one_too_many(
    llama: BaseShapes, write_lora: WriteLora, strange: str
) -> None:
    files = inspect_adapter(write_lora({Q.format(0): 2, strange: 2}))
    with pytest.raises(WeightsError, match=f"changes {strange}, which this base model lacks"):
        llama.check(files)


@pytest.mark.parametrize(
    ("layers", "config"),
    [
        ([Q.format(0), Q.format(1)], {}),
        ([Q.format(0), Q.format(1), K.format(0), K.format(1)], {"target_modules": "all-linear"}),
        ([Q.format(1)], {"layers_to_transform": [1]}),
        ([Q.format(1)], {"target_modules": [Q.format(1)]}),
        ([Q.format(0), Q.format(1), UP.format(1)], {"target_modules": ["q_proj", UP.format(1)]}),
        ([Q.format(1)], {"exclude_modules": ["layers.0.self_attn.q_proj"]}),
        ([Q.format(1)], {"target_modules": r".*\.1\.self_attn\.q_proj"}),
    ],
)
def test_a_whole_adapter_fits(
    llama: BaseShapes, write_lora: WriteLora, layers: list[str], config: dict[str, Any]
) -> None:
    llama.check(inspect_adapter(write_lora(dict.fromkeys(layers, 2), **config)))


@pytest.mark.parametrize("modules", [["q_proj"], ["self_attn.q_proj"], "all-linear"])
def test_an_adapter_that_lacks_the_tensors_of_a_layer_is_refused(
    llama: BaseShapes, write_lora: WriteLora, modules: Any
) -> None:
    files = inspect_adapter(write_lora({Q.format(0): 2}, target_modules=modules))
    with pytest.raises(WeightsError, match=r"changes model.layers.1.self_attn.q_proj, but there"):
        llama.check(files)


def test_a_tied_head_has_the_shape_of_the_embedding(llama: BaseShapes, write_lora: WriteLora) -> None:
    with pytest.raises(WeightsError, match=r"lm_head takes 8 features to 8, in .* 8 to 64"):
        llama.check(inspect_adapter(write_lora({"lm_head": 2})))


def test_an_embedding_takes_words_to_features(llama: BaseShapes, write_lora: WriteLora) -> None:
    stem = "base_model.model.model.embed_tokens.lora_embedding_"
    for words, fits in ((64, True), (63, False)):
        a, b = np.ones((2, words), np.float32), np.ones((8, 2), np.float32)
        folder = write_lora({}, others={f"{stem}A": a, f"{stem}B": b}, r=2, target_modules=["embed_tokens"])
        if fits:
            llama.check(inspect_adapter(folder))
        else:
            with pytest.raises(WeightsError, match="takes 63 features to 8"):
                llama.check(inspect_adapter(folder))


def test_files_that_leave_out_the_models_own_prefix_are_known(tmp_path: Path, write_lora: WriteLora) -> None:
    shapes = base(tmp_path / "gpt2", {"h.0.attn.c_attn": (8, 8)})
    shapes.check(inspect_adapter(write_lora({"transformer.h.0.attn.c_attn": 2})))
    for name in ("h.0.attn.c_attn", "other.h.0.attn.c_attn"):
        with pytest.raises(WeightsError, match="which this base model lacks"):
            shapes.check(inspect_adapter(write_lora({name: 2})))


@pytest.mark.parametrize("ending", ["weight", "qweight", "weight_packed"])
def test_of_a_quantised_base_the_names_are_known(tmp_path: Path, write_lora: WriteLora, ending: str) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"bits": 4}}))
    packed = {f"{Q.format(0)}.{ending}": np.zeros((4, 1), np.int32)}
    save_file(packed, folder / "model.safetensors")
    shapes = BaseShapes.of_folder(folder)
    shapes.check(inspect_adapter(write_lora({Q.format(0): 2})))
    with pytest.raises(WeightsError, match="which this base model lacks"):
        shapes.check(inspect_adapter(write_lora({f"_orig_mod.{Q.format(0)}": 2})))


@pytest.mark.parametrize("layer", [Q.format(3), UP.format(0), "lm_head", "model.embed_tokens"])
def test_what_measured_adapters_do_not_name_may_be_as_in_well_known_models(write_lora: WriteLora, layer: str) -> None:
    shapes = BaseShapes.of_adapters([write_lora({Q.format(0): 2, Q.format(3): 2})])
    shapes.check(inspect_adapter(write_lora({layer: 2})))


@pytest.mark.parametrize(
    "layer",
    [
        f"_orig_mod.{Q.format(0)}",
        f"language_model.{Q.format(0)}",
        "model.layers.0.attn.q_proj",
        "transformer.h.0.attn.c_attn",
        "model.decoder.layers.0.self_attn.q_proj",
        Q.format(4),
        "q_proj",
    ],
)
def test_what_neither_measured_adapters_nor_well_known_models_have_is_refused(
    write_lora: WriteLora, layer: str
) -> None:
    shapes = BaseShapes.of_adapters([write_lora({Q.format(0): 2, Q.format(3): 2})])
    with pytest.raises(WeightsError, match="no such layer is known of the base model"):
        shapes.check(inspect_adapter(write_lora({Q.format(0): 2, layer: 2})))


def test_a_module_has_the_place_in_which_it_was_measured(write_lora: WriteLora) -> None:
    own = "model.layers.{}.attention.q_proj"
    shapes = BaseShapes.of_adapters([write_lora({own.format(0): 2})])
    shapes.check(inspect_adapter(write_lora({own.format(0): 4})))
    with pytest.raises(WeightsError, match="no such layer is known"):
        shapes.check(inspect_adapter(write_lora({Q.format(0): 2})))


def test_a_measured_adapter_that_would_be_refused_shows_no_layers(write_lora: WriteLora) -> None:
    bad = write_lora({Q.format(0): 2}, others={"strange": np.ones((1, 1), np.float32)})
    assert BaseShapes.of_adapters([bad]) == BaseShapes()


@pytest.mark.parametrize("layer", [Q.format(0), "transformer.h.0.attn.c_attn"])
def test_where_nothing_is_known_well_known_models_are(write_lora: WriteLora, layer: str) -> None:
    BaseShapes().check(inspect_adapter(write_lora({layer: 2})))
    with pytest.raises(WeightsError, match="no such layer is known"):
        BaseShapes().check(inspect_adapter(write_lora({layer: 2, f"_orig_mod.{layer}": 2})))
