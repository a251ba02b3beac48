"""What is read of an adapter's configuration, and that its tensors agree with it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import WeightsError, inspect_adapter
from traitroute.adapters.weights.adapter_config import check_full_match

WriteLora = Callable[..., Path]
CONFIG = "adapter_config.json"
Q = "model.layers.{}.self_attn.q_proj"
ONE = {Q.format(0): 2}
TWO = {Q.format(0): 2, Q.format(1): 2}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark: save it as UTF-8"),
        ('{"r": 2}'.encode("utf-16"), "byte order mark: save it as UTF-8"),
        ('{"r": 2}'.encode("utf-16-le"), "is not JSON"),
        (b'{"r": "\xff"}', "UTF-8"),
        (b'{"r": 2, "r": 4096}', "'r' is there twice"),
        (b'{"a": ' + b"[" * 100_000, "is not JSON"),
        (b'{"r": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "no JSON object"),
        (b"", "no JSON object"),
        (b'{"a": "' + b"x" * 2**20 + b'"}', "larger than the 1048576 bytes"),
    ],
)
def test_what_a_server_would_read_otherwise_or_not_at_all_is_refused(
    write_lora: WriteLora, data: bytes, why: str
) -> None:
    folder = write_lora(ONE)
    (folder / CONFIG).write_bytes(data)
    with pytest.raises(WeightsError, match=why):
        inspect_adapter(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 2**70),
        ("r", 513),
        ("r", True),
        ("r", "2"),
        ("r", 2.0),
        ("lora_alpha", 1e7),
        ("lora_alpha", 10**400),
        ("lora_alpha", float("inf")),
        ("lora_alpha", True),
        ("layers_to_transform", [1, "a"]),
        ("layers_to_transform", [True]),
        ("layers_to_transform", -1),
        ("layers_pattern", ["(a+)+"]),
        ("rank_pattern", {"q_proj": 4096}),
        ("rank_pattern", {"q_proj": "2"}),
        ("rank_pattern", {"(a+)+$": 2}),
        ("rank_pattern", {"q_proj|v_proj": 2}),
        ("rank_pattern", ["q_proj"]),
        ("alpha_pattern", {".*": 1}),
        ("alpha_pattern", {"q_proj": float("nan")}),
        ("exclude_modules", "(a+)+"),
        ("exclude_modules", ["v proj"]),
        ("target_modules", None),
        ("target_modules", []),
        ("target_modules", [1]),
        ("target_modules", ["q_proj", "--host=0.0.0.0"]),
        ("target_modules", ["q_proj", "!"]),
        ("target_modules", ["q_proj", "self_attn..q_proj"]),
        ("target_modules", ["q_proj", "ｑ_proj"]),
        ("target_modules", {"q_proj": 1}),
        ("modules_to_save", "lm_head"),
        ("base_model_name_or_path", 1),
        ("use_rslora", "yes"),
        ("fan_in_fan_out", 1),
    ],
)
def test_a_setting_of_another_kind_is_named_with_its_file(write_lora: WriteLora, key: str, value: Any) -> None:
    with pytest.raises(WeightsError, match=f"{key}: ") as refusal:
        inspect_adapter(write_lora(ONE, **{key: value}))
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("value", ["\x1b[31mred", "\u202etxt.exe", "a\nb: c", "x" * 10_000])
@pytest.mark.parametrize("key", ["peft_type", "bias", "init_lora_weights", "exclude_modules", "layers_pattern"])
def test_no_untrusted_string_is_shown_as_it_is(write_lora: WriteLora, key: str, value: str) -> None:
    given = f"pissa{value}" if key == "init_lora_weights" else value
    folder = write_lora(ONE, **{key: given})
    try:
        said = inspect_adapter(folder).unservable or ""
    except WeightsError as exc:
        said = str(exc)
    assert said.isprintable()
    assert said.isascii()
    assert 0 < len(said) < 600


def test_the_rank_is_the_highest_of_the_tensors(write_lora: WriteLora) -> None:
    layers = {Q.format(0): 4, "model.layers.0.self_attn.v_proj": 16}
    files = inspect_adapter(write_lora(layers, rank_pattern={"v_proj": 16}))
    assert (files.rank, files.layers["model.layers.0.self_attn.v_proj"].rank) == (16, 16)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"r": 512}, "has rank 2, but .* says r = 512"),
        ({"r": 512, "rank_pattern": {"zzz": 8}}, "rank_pattern: 'zzz' matches no layer"),
        ({"r": 4, "rank_pattern": {"q_proj": 16}}, "has rank 2, but .* says r = 16"),
        ({"r": 8, "rank_pattern": {"q_proj": 2}}, "rank 8 is no layer's, the highest is 2"),
        ({"rank_pattern": {"q_proj": 2, "self_attn.q_proj": 512}}, "rank 512 is no layer's"),
        ({"alpha_pattern": {"zzz": 8}}, "alpha_pattern: 'zzz' matches no layer"),
        ({"target_modules": ["q_proj", "v_proj"]}, "names 'v_proj', but there are no tensors"),
        ({"target_modules": ["v_proj"]}, "names 'v_proj', but there are no tensors"),
        ({"target_modules": [Q.format(0)]}, r"does not name model.layers.1.self_attn.q_proj"),
        ({"layers_to_transform": 0}, r"names the layers \[0\], but there are tensors for \[0, 1\]"),
        ({"layers_to_transform": [0, 1, 2]}, r"names the layers \[0, 1, 2\]"),
    ],
)
def test_tensors_and_configuration_are_of_one_adapter(write_lora: WriteLora, config: dict[str, Any], why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        inspect_adapter(write_lora(TWO, **config))


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["self_attn.q_proj"]},
        {"target_modules": [Q.format(0), Q.format(1)]},
        {"target_modules": "all-linear"},
        {"layers_to_transform": [1, 0], "layers_pattern": "layers"},
        {"r": 1, "rank_pattern": {"q_proj": 2}},
        {
            "r": 1,
            "rank_pattern": {
                "^model.layers.0.self_attn.q_proj": 2,
                r"layers\.1\.self_attn\.q_proj": 2,
            },
        },
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 16}},
        {"exclude_modules": ["lm_head"]},
        {"bias": "none", "use_dora": False, "modules_to_save": None, "layer_replication": None},
    ],
)
def test_whatever_way_the_modules_are_named_they_are_those_of_the_tensors(
    write_lora: WriteLora, config: dict[str, Any]
) -> None:
    files = inspect_adapter(write_lora(TWO, **config))
    assert files.target_modules == ("q_proj",)
    assert set(files.layers) == set(TWO)
    assert files.peft_settings()["target_modules"] == sorted(TWO)
    assert files.unservable is None


def test_a_pattern_is_kept_from_servers(write_lora: WriteLora) -> None:
    files = inspect_adapter(write_lora(ONE, target_modules="(.*)+q_proj"))
    assert files.pattern == "(.*)+q_proj"
    assert "(.*)+q_proj" not in json.dumps(files.peft_settings())


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"target_parameters": ["experts.up"]}, "parameters that are no layers"),
        ({"trainable_token_indices": [1, 2]}, "embeddings of tokens"),
        ({"use_qalora": True}, "QALoRA"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"layer_replication": [[0, 1]]}, "repeats layers"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model"),
        ({"init_lora_weights": "unheard_of"}, "changes the base model"),
        ({"init_lora_weights": {"a": 1}}, "changes the base model"),
    ],
)
def test_what_no_server_applies_whole_is_reported(write_lora: WriteLora, config: dict[str, Any], why: str) -> None:
    assert why in (inspect_adapter(write_lora(ONE, **config)).unservable or "")


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.q_proj",
        r"model\.layers\.\d+\.self_attn\.(q_proj|k_proj)",
        r"(?:.*?(?:language|text|model).*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.q)",
    ],
)
def test_a_pattern_that_matches_each_layer_passes(pattern: str) -> None:
    check_full_match(pattern, list(TWO))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r".*layers\.0\..*", "does not match model.layers.1.self_attn.q_proj"),
        ("q_proj", "does not match model.layers.0.self_attn.q_proj"),
        ("(", "is no regular expression"),
        ("\x1b[31m(", "is no regular expression"),
        ("x" * 4001, "longer than 4000"),
        ("((a{1,100}){1,100}){1,100}" * 40, "target_modules"),
    ],
)
def test_a_pattern_that_does_not_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(WeightsError, match=why) as refusal:
        check_full_match(pattern, list(TWO))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300


@pytest.mark.slow
def test_a_pattern_that_never_ends_is_stopped() -> None:
    since = time.thread_time()
    with pytest.raises(WeightsError, match="takes more than"):
        check_full_match(r"(([a-z0-9_.])*)*!", list(TWO))
    assert time.thread_time() - since < 0.5
