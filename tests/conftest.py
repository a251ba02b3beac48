"""Settings for every test, and tiny random models in float32, of which equality can be asked."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("traitroute", deadline=None)
settings.load_profile("traitroute")


@dataclass(frozen=True)
class TinyModels:
    """Makes models of the words w0 to w63, and adapters for them; needs torch, transformers and PEFT."""

    words: int = 64
    end: int = 2

    def llama_sizes(self) -> dict[str, Any]:
        """Settings of a two-layer Llama whose query heads share keys."""
        return {
            "vocab_size": self.words,
            "hidden_size": 48,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 128,
            "initializer_range": 0.6,
            "bos_token_id": 1,
            "eos_token_id": self.end,
            "pad_token_id": 0,
        }

    def save(self, folder: Path, config: Any = None) -> Path:
        """A random model with its tokenizer, one token a word."""
        import torch
        import transformers

        config = config or transformers.LlamaConfig(**self.llama_sizes())
        torch.manual_seed(3)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        # The unknown word is one that no model writes and no other word begins with.
        words = {f"w{n}": n for n in range(self.words)} | {"<unk>": self.words}
        data = {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
        }
        (folder / "tokenizer.json").write_text(json.dumps(data))
        tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
        return folder

    def save_adapter(
        self,
        base: Path,
        folder: Path,
        *,
        seed: int,
        modules: Collection[str] = ("q_proj", "v_proj", "up_proj", "down_proj"),
        **lora: Any,
    ) -> Path:
        """A random LoRA that changes what the base model says."""
        import peft
        import torch
        import transformers

        torch.manual_seed(seed)
        given = {"r": 4, "lora_alpha": 2, "target_modules": list(modules), **lora}
        config = peft.LoraConfig(init_lora_weights=False, **given)
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        peft.get_peft_model(model, config).save_pretrained(str(folder))
        return folder

    def numbers(self, text: str) -> list[int]:
        """The token ids of words."""
        return [int(word[1:]) for word in text.split()]

    def plain_answer(self, model: Any, prompt: list[int], max_tokens: int) -> list[int]:
        """What `generate` says with no cache and nothing beside it, up to the end token."""
        import torch

        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            use_cache=False,
            eos_token_id=self.end,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        return out[: out.index(self.end)] if self.end in out else out


@pytest.fixture(scope="session")
def tiny() -> TinyModels:
    """Makes tiny models."""
    return TinyModels()
