"""Patterns of strangers are matched elsewhere, and not for long."""

import time

import pytest
from traitroute.adapters import WeightsError
from traitroute.adapters.weights.full_match import check_full_match

LAYERS = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.q_proj",
        r"model\.layers\.\d+\.self_attn\.(q_proj|k_proj)",
        r"(?:.*?(?:language|text|model).*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.q)",
    ],
)
def test_a_pattern_that_matches_each_layer_passes(pattern: str) -> None:
    check_full_match(pattern, LAYERS)


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
        check_full_match(pattern, LAYERS)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300


def test_a_pattern_without_end_holds_nobody_for_long() -> None:
    since = time.thread_time()
    with pytest.raises(WeightsError, match="takes more than"):
        check_full_match(r"(([a-z0-9_.])*)*!", LAYERS)
    assert time.thread_time() - since < 0.5
