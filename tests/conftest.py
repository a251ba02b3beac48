"""Settings for every test, a PostgreSQL server, and tiny random models in float32, of which equality can be asked.

Tests run in two processes (`make test`). All tests of a file go to one of them, and so do all tests of an
`xdist_group`, so that a server that a group shares is started once. The longest groups start first.
"""

import os
import sys

# Two processes share the cores: one thread each, which does not spin while it waits. Before numpy and torch are
# imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# GiB for each engine, of which several run at once.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

from .real_run import real_demo, real_run
from .servers import RUNNING, gateway_server, tiny_house, upstream_server, vllm_server

__all__ = ["gateway_server", "real_demo", "real_run", "tiny_house", "upstream_server", "vllm_server"]

MakeAdapter = Callable[..., Path]

# What benchmarks compare with is there: `make benchmarks`.
sys.path.extend(map(str, Path(__file__).parents[1].glob(".venv-benchmarks/lib/python*/site-packages")))

# A busy machine is no failure.
settings.register_profile("traitroute", deadline=None)
settings.load_profile("traitroute")

GROUP = re.compile(r'xdist_group\("(\w+)"\)')
LONGEST_FIRST = ("real", "vllm")
"""Groups (`xdist_group`) that take minutes, by what they take."""
SLOW_FIXTURES = {"tiny", "tiny_chat", "postgres", "browser", "parser"}
SLOW_LIBRARIES = "torch|vllm|transformers|peft|lm_eval|schemathesis|semantic_router"
SLOW_IMPORT = re.compile(rf'^(import |from |(\w+ = )?pytest\.importorskip\(\s*")({SLOW_LIBRARIES})\b', re.MULTILINE)
"""A test is slow that needs one of these, whether or not it says so."""


@cache
def _imports_much(source: Path) -> bool:
    """Whether a file of tests imports, as it is read itself, a library that takes seconds."""
    return source.is_file() and SLOW_IMPORT.search(source.read_text(encoding="utf-8")) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no slow tests are wanted, do not even import what only they need."""
    if config.option.markexpr != "not slow" or not collection_path.is_relative_to(Path(__file__).parent):
        return None
    source = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    return True if source.suffix == ".py" and _imports_much(source) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a model, a database server or a browser, and put the longest groups first."""
    for item in items:
        if isinstance(item, pytest.Function) and _needs_much(item):
            item.add_marker("slow")
    slow = {_unit(item) for item in items if item.get_closest_marker("slow")}
    order = {name: turn for turn, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(_unit(item), len(order) + (_unit(item) not in slow)))


def _needs_much(test: pytest.Function) -> bool:
    # Tests of both databases have it as a parameter, others as a fixture.
    if SLOW_FIXTURES & set(test.fixturenames) or "postgresql" in test.name:
        return True
    return _imports_much(test.path) or _imports_much(test.path.with_name("conftest.py"))


@cache
def _unit_of(file: str) -> str:
    """What one process runs whole: all files of a group, or a file; `file` as in a test's id."""
    source = Path(__file__).parents[1] / file
    group = GROUP.search(source.read_text(encoding="utf-8")) if source.is_file() else None
    return group[1] if group else file


def _unit(item: pytest.Item) -> str:
    return _unit_of(item.nodeid.split("::")[0])


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the servers of a group with its last test."""
    if nextitem is None or _unit(nextitem) != _unit(item):
        RUNNING.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, unless a group says where a test goes."""
    from xdist.scheduler.loadgroup import LoadGroupScheduling  # pyright: ignore[reportMissingImports]

    class FilesAndGroups(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit_of(nodeid.split("::")[0])

    return FilesAndGroups(config, log)


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


CHAT = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A chat template that ends every turn, as training needs it."""


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model of a few seconds' training, that can be trained on any text."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
    from serving.stand import tiny_base

    return tiny_base(tmp_path_factory.mktemp("chat") / "tiny", template=CHAT)


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
    """Write, without torch, an adapter of rank 2 in PEFT's format on `q_proj` and `v_proj`; keywords change its
    configuration.
    """

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
