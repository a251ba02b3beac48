"""Adapter names and serving ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.adapters import Adapter, check_name, check_not_base, serving_id


@given(st.binary(min_size=32, max_size=32))
def test_serving_ids_lie_above_any_that_vllm_counts_and_within_31_bits(digest: bytes) -> None:
    assert 2**30 <= serving_id(digest.hex()) < 2**31


def test_an_adapters_serving_id_follows_from_its_weights_alone() -> None:
    one = Adapter(
        name="one",
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest="b" * 64,
        rank=2,
        target_modules=("q_proj",),
    )
    other = one.model_copy(update={"name": "other", "base_model": "elsewhere"})
    assert one.serving_id == other.serving_id == serving_id("b" * 64)


@pytest.mark.parametrize("name", ["math", "gsm8k-v1.2_final", "7b", "a" * 64])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "auto", "Base", "a/b", "a..b", ".hidden", "a b", "a\n", "a" * 65])
def test_names_that_would_mislead_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be a name|is reserved"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "base_model"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("llama-3", "/models/Llama-3/"),
        ("llama-3", "acme/Llama-3"),
        ("llama-3", "C:\\models\\llama-3"),
        ("llama-3", "/hub/models--acme--llama-3/snapshots/1"),
        ("llama-3", "llama-3:latest"),
        ("llama-3", "/models/Llama-3.gguf"),
    ],
)
def test_an_adapter_is_not_called_like_its_base_model(name: str, base_model: str) -> None:
    with pytest.raises(ValueError, match="is the name of the base model"):
        check_not_base(name, base_model)


@pytest.mark.parametrize("base_model", ["llama", "acme/llama-3.1", "llama-3:8b", "llama-3/other"])
def test_a_name_that_begins_alike_is_another(base_model: str) -> None:
    check_not_base("llama-3", base_model)
