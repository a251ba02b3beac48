"""Settings for every test, a PostgreSQL server, and tiny random models in float32, of which equality can be asked."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

MakeAdapter = Callable[..., Path]

# What benchmarks and tests share is there: benchmarks are scripts, whose folder is where their imports are found.
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

# A busy machine is no failure.
settings.register_profile("traitroute", deadline=None)
settings.load_profile("traitroute")


@pytest.fixture(autouse=True)
def _logging() -> None:
    """Let warnings be told: a package that vLLM imports sets the root logger, and its handlers, to errors only."""
    logging.root.setLevel(logging.WARNING)
    for handler in logging.root.handlers:
        handler.setLevel(logging.NOTSET)


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
        given: dict[str, Any] = {"r": 4, "lora_alpha": 2, "init_lora_weights": False}
        config = peft.LoraConfig(**{**given, "target_modules": list(modules), **lora})
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        adapted = peft.get_peft_model(model, config)
        # Beside a LoRA of an embedding PEFT would save the embedding.
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A running PostgreSQL server that may be killed; `new_database` gives each test its own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgresql]'")
    from reprofiling.postgres_server import PROGRAMS, postgres_server

    if not PROGRAMS.is_dir():
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    with postgres_server(durable=False) as server:
        yield server


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Write, without torch, an adapter of rank 2 in PEFT's format on `q_proj` and `v_proj`; keywords change its configuration."""

    def make(name: str = "adapter", *, fill: float = 0.5, rank: int = 2, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {
            "base_model_name_or_path": "tiny-llama",
            "lora_alpha": 4,
            "peft_type": "LORA",
            "r": 2,
            "target_modules": ["v_proj", "q_proj"],
        }
        tensors = {}
        for module in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.0.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = np.full((rank, 8), fill, np.float32)
            tensors[f"{stem}.lora_B.weight"] = np.full((8, rank), fill, np.float32)
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return make


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI app from a thread of this process, as our servers do; its URL. `options` are uvicorn's."""
    pytest.importorskip("uvicorn", reason="needs it: pip install 'traitroute[embedded]'")
    from traitroute.serving.http.server import make_server

    server = make_server(app, host="127.0.0.1", **{"port": 0, "log_level": "error"} | options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "it did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
