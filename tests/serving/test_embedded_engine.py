"""The embedded engine answers as plain `generate` and plain forward passes do, prompt by prompt.

Tiny random models in float32, so that equality can be asked for: grouped keys, sliding windows and
attention that no interface reaches take three ways through the engine.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from traitroute.adapters import Adapter, FinishReason, WeightsError, WeightStore
from traitroute.serving.engines import EngineRequest, TransformersEngine, embedded

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'traitroute[profile]'")
peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

# These import torch when they are imported.
from traitroute.serving.engines import candidates, decoding  # noqa: E402
from traitroute.serving.engines.decoding import GROUPED_ATTENTION, keeps_all_keys  # noqa: E402
from traitroute.serving.engines.packing import PackedLinear, is_packable, pack  # noqa: E402

CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "grouped keys": lambda sizes: transformers.LlamaConfig(**sizes),
    "one key head a query head": lambda sizes: transformers.LlamaConfig(**sizes | {"num_key_value_heads": 6}),
    "sliding windows": lambda sizes: transformers.MistralConfig(**sizes, sliding_window=6),
    "attention of its own": lambda sizes: transformers.BloomConfig(
        vocab_size=sizes["vocab_size"], hidden_size=32, n_layer=2, n_head=4, initializer_range=0.6
    ),
}
PROMPTS = [
    "w5",
    "w5 w6",
    "w9 w8 w7 w6 w5 w4",
    "w11 w12 w13 w11 w12 w13 w14 w15 w16 w17",
    "w5 w6 w7",
]
CANDIDATES = ("w20", "w20 w21", "w20 w21 w22 w23", "w20 w30", "w31", "", "w20 w21")


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    config = CONFIGS[request.param](tiny.llama_sizes())
    return tiny.save(tmp_path_factory.mktemp("base"), config)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    return tiny.save(tmp_path_factory.mktemp("llama"))


def open_float32(folder: Path, tmp_path: Path) -> TransformersEngine:
    return TransformersEngine(folder, WeightStore(tmp_path / "weights"), precision="float32")


def ask(prompt: str, **kwargs: Any) -> EngineRequest:
    return EngineRequest(messages=({"role": "user", "content": prompt},), **kwargs)


def naive_log_likelihood(model: Any, prompt: list[int], candidate: list[int]) -> float:
    with torch.no_grad():
        logp = model(input_ids=torch.tensor([prompt + candidate])).logits[0].log_softmax(-1)
    start = len(prompt) - 1
    return sum(float(logp[start + n, token]) for n, token in enumerate(candidate))


def numbers(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def test_texts_equal_plain_generation_of_each_prompt(folder: Path, tmp_path: Path, tiny: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    results = open_float32(folder, tmp_path).run([ask(p, max_tokens=12) for p in PROMPTS])
    for prompt, result in zip(PROMPTS, results, strict=True):
        expected = tiny.plain_answer(model, numbers(prompt), 12)
        assert numbers(result.text) == expected
        assert result.output_tokens == len(expected)
        assert result.finish_reason is (FinishReason.LENGTH if len(expected) == 12 else FinishReason.STOP)


def test_log_likelihoods_equal_a_plain_forward_pass(folder: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    requests = [ask(p, candidates=CANDIDATES[n:]) for n, p in enumerate(PROMPTS)]
    for request, result in zip(requests, open_float32(folder, tmp_path).run(requests), strict=True):
        prompt = numbers(request.messages[0]["content"])
        expected = [naive_log_likelihood(model, prompt, numbers(c)) for c in request.candidates]
        assert result.log_likelihoods == pytest.approx(expected, abs=2e-4)
        assert result.candidate_tokens == tuple(len(c.split()) for c in request.candidates)
        assert (result.text, result.output_tokens) == ("", 0)
        assert result.finish_reason is FinishReason.STOP


def test_scoring_does_not_change_what_is_generated(folder: Path, tmp_path: Path) -> None:
    engine = open_float32(folder, tmp_path)
    plain = engine.run([ask(p, max_tokens=6) for p in PROMPTS])
    scored = engine.run([ask(p, max_tokens=6, candidates=CANDIDATES) for p in PROMPTS])
    assert [r.text for r in scored] == [r.text for r in plain]


def test_rows_that_end_early_leave_the_others_unchanged(llama: Path, tmp_path: Path) -> None:
    engine = open_float32(llama, tmp_path)
    prompts = [f"w{a} w{b}" for a in range(4, 34) for b in (7, 40)]
    together = engine.run([ask(p, max_tokens=16) for p in prompts])
    alone = [engine.run([ask(p, max_tokens=16)])[0] for p in prompts]
    assert len({r.output_tokens for r in together}) > 3, "the model must end some answers early"
    assert together == alone


def test_requests_of_different_limits_share_a_batch_and_are_answered_as_alone(llama: Path, tmp_path: Path) -> None:
    engine = open_float32(llama, tmp_path)
    asked = [ask(p, max_tokens=n, candidates=("w20 w21",)) for p, n in zip(PROMPTS, (3, 0, 12, 1, 7), strict=True)]
    together = engine.run(asked)
    assert [r.output_tokens for r in together] == [3, 0, 12, 1, 7]
    for request, result in zip(asked, together, strict=True):
        alone = engine.run([request])[0]
        assert (result.text, result.finish_reason) == (alone.text, alone.finish_reason)
        assert result.log_likelihoods == pytest.approx(alone.log_likelihoods, abs=2e-4)


def test_small_chunks_and_batches_give_the_same_results(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_float32(llama, tmp_path)
    start = " ".join(f"w{n}" for n in range(40, 52))
    requests = [ask(f"{start} {p}", max_tokens=6, candidates=CANDIDATES) for p in PROMPTS]
    whole = engine.run(requests)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 8)
    monkeypatch.setattr(candidates, "SCORE_TOKENS", 8)
    monkeypatch.setattr(embedded, "BATCH", 3)
    for a, b in zip(whole, engine.run(requests), strict=True):
        assert a.text == b.text
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=2e-4)


def test_a_shared_start_is_read_once(llama: Path, tmp_path: Path) -> None:
    engine = open_float32(llama, tmp_path)
    read = []
    engine._base.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    start = " ".join(f"w{n}" for n in range(40, 60))
    engine.run([ask(f"{start} {p}", candidates=("w20", "w31")) for p in PROMPTS])
    # 20 tokens once, then the five rests padded to the longest; one-token candidates cost nothing.
    assert sum(read) == 20 + 5 * 10


def test_prompts_with_a_shared_start_equal_the_plain_model(llama: Path, tmp_path: Path, tiny: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    start = " ".join(f"w{n}" for n in range(40, 60))
    requests = [ask(f"{start} {p}", max_tokens=8, candidates=("w20 w21",)) for p in PROMPTS]
    for request, result in zip(requests, open_float32(llama, tmp_path).run(requests), strict=True):
        prompt = numbers(request.messages[0]["content"])
        expected = naive_log_likelihood(model, prompt, [20, 21])
        assert result.log_likelihoods[0] == pytest.approx(expected, abs=2e-4)
        assert numbers(result.text) == tiny.plain_answer(model, prompt, 8)


def test_equal_prompts_are_each_answered(llama: Path, tmp_path: Path) -> None:
    prompt = " ".join(f"w{n}" for n in range(40, 60))
    first, second = open_float32(llama, tmp_path).run([ask(prompt, max_tokens=5)] * 2)
    assert first == second
    assert first.output_tokens > 0


def test_only_models_that_keep_all_keys_share_them(tiny: Any) -> None:
    fit = {}
    for name, config in CONFIGS.items():
        model = transformers.AutoModelForCausalLM.from_config(config(tiny.llama_sizes()))
        fit[name] = keeps_all_keys(model)
    assert fit == {
        "grouped keys": True,
        "one key head a query head": True,
        "sliding windows": False,
        "attention of its own": False,
    }


def test_grouped_attention_serves_on_cpus_only(llama: Path, tmp_path: Path) -> None:
    used = open_float32(llama, tmp_path)._base.config._attn_implementation
    assert (used == GROUPED_ATTENTION) is not torch.cuda.is_available()


@pytest.mark.parametrize("method", ["LoRA", "DoRA", "IA3"])
def test_an_adapter_is_merged_and_the_base_model_stays(llama: Path, tmp_path: Path, method: str) -> None:
    engine = open_float32(llama, tmp_path)
    adapter, expected = _add_adapter(llama, engine._weights, tmp_path, method)
    before = {k: v.clone() for k, v in engine._base.state_dict().items()}
    adapted, base = engine.run(
        [
            ask(PROMPTS[2], adapter=adapter, candidates=("w20 w21",)),
            ask(PROMPTS[2], candidates=("w20 w21",)),
        ]
    )
    assert adapted.log_likelihoods == pytest.approx([expected], abs=1e-3)
    assert adapted.log_likelihoods != pytest.approx(base.log_likelihoods, abs=1e-2)
    assert all(torch.equal(before[k], v) for k, v in engine._base.state_dict().items())


def test_base_requests_between_leave_the_adapter_merged(llama: Path, tmp_path: Path) -> None:
    engine = open_float32(llama, tmp_path)
    adapter, _ = _add_adapter(llama, engine._weights, tmp_path, "LoRA")
    with_it = engine._model(adapter.weights_digest)
    assert engine._model(None) is engine._base
    assert engine._model(adapter.weights_digest) is with_it


@pytest.mark.parametrize(("precision", "off"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_packed_layers_compute_what_plain_ones_do(llama: Path, precision: str, off: float) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=getattr(torch, precision)).eval()
    if not is_packable(model):
        pytest.skip(f"oneDNN has no {precision} for this processor")
    plain = copy.deepcopy(model)
    pack(model)
    assert isinstance(model.lm_head, PackedLinear)
    assert not any(type(layer) is torch.nn.Linear for layer in model.modules())
    for rows in (1, 3, 40):
        ids = torch.arange(5, 5 + 7)[None].expand(rows, -1)
        with torch.inference_mode():
            torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=off, rtol=off)


def _add_adapter(base: Path, weights: WeightStore, folder: Path, method: str) -> tuple[Adapter, float]:
    """A random adapter in the store, and the log-likelihood of "w20 w21" with it, not merged."""
    targets = ["q_proj", "v_proj", "down_proj"]
    if method == "IA3":
        config = peft.IA3Config(target_modules=targets, feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    else:
        config = peft.LoraConfig(r=4, target_modules=targets, use_dora=method == "DoRA", task_type="CAUSAL_LM")
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    tuned = peft.get_peft_model(model, config).eval()
    for name, parameter in tuned.named_parameters():
        if "lora_" in name or "ia3_" in name:
            parameter.data += torch.randn_like(parameter) * 0.3
    tuned.save_pretrained(folder / "adapter")
    files = weights.add(folder / "adapter")
    adapter = Adapter(
        name="tuned",
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
    )
    return adapter, naive_log_likelihood(tuned, numbers(PROMPTS[2]), [20, 21])


def test_a_part_of_an_adapter_is_not_measured(llama: Path, tmp_path: Path, tiny: Any) -> None:
    tiny.save_adapter(llama, tmp_path / "half", seed=5)
    weights = tmp_path / "half" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({n.replace("layers.1.", "layers.7."): t for n, t in tensors.items()}, weights)
    engine = open_float32(llama, tmp_path)
    files = WeightStore(tmp_path / "weights").add(tmp_path / "half")
    adapter = Adapter(
        name="half",
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
    )
    with pytest.raises(WeightsError, match=r"layers\.7\..* a part of an adapter is none"):
        engine.run([ask("w5", adapter=adapter, max_tokens=2)])
