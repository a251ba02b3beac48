"""What the serving benchmarks run against: a real `vllm serve` with the plugin, and a registry made for it.

`tiny_stand` serves a two-layer Llama with eight adapters whose answers cannot be mistaken for each other's;
`packaged_stand` serves SmolLM2-135M with the registry of a finished run, or with adapters of random weights. Made
registries hold a real fitted profile, of made-up gains: each adapter helps the requests of its own topic.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from latency.texts import Rows
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.profiling import PACKAGED, open_base_model
from traitroute.router import FitRequests, RoutingProfile, fit_profile
from traitroute.serving.vllm import RunningServer, free_port, running_process, running_server

from .topics import TOPICS

MODULES = ["q_proj", "v_proj", "o_proj", "down_proj"]
TINY_CONTEXT, PACKAGED_CONTEXT = 256, 2048
RANK = 8
SLOTS = str(len(TOPICS) + 3)
TINY_OPTIONS = ("--dtype", "float32", "--max-loras", SLOTS, "--max-cpu-loras", SLOTS)
"""Room for adapters that come later too: on CPUs it is fixed at the start, and one slot has to stay empty."""
TINY_WEIGHTS, PACKAGED_WEIGHTS = 0.5, 0.02
"""Spread of the random weights: such that tiny adapters change every answer, and SmolLM2's stay numbers."""

START_LIMIT_S = 1800.0
"""A busy machine takes long to import an engine."""

TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant:"


@dataclass(frozen=True)
class Stand:
    """A server that answers those who have its `key`; `base` is the name that answers of the bare base model bear."""

    server: RunningServer
    registry: Registry
    folder: Path
    base_path: Path
    rows: Rows
    key: str | None = None

    @property
    def base(self) -> str:
        """The base model's served name."""
        return self.base_path.name


@contextmanager
def tiny_stand(
    *, options: Sequence[str] = (), plugin: bool = True, twins: Mapping[str, str] | None = None
) -> Iterator[Stand]:
    """Serve the tiny model in float32, in which equality of answers can be asked; `twins` as in `topic_profile`.

    Without the `plugin` vLLM is told of the adapters on its command line, and does not know `auto`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = tiny_base(folder / "tiny")
        registry = made_registry(folder, base, twins=twins)
        more = [*TINY_OPTIONS, *options]
        variables = {}
        if not plugin:
            stored = registry.weights.path
            named = [f"{a.name}={stored(a.weights_digest)}" for a in registry.servable()]
            more, variables = [*more, "--lora-modules", *named], {"VLLM_PLUGINS": ""}
        with _serving(folder, base, registry, TINY_CONTEXT, more, variables) as server:
            yield Stand(server, registry, folder, base, TOPICS)


@contextmanager
def gateway_stand(*, options: Sequence[str] = ()) -> Iterator[Stand]:
    """The tiny model in a vLLM without the plugin that knows no adapter, behind a gateway that has it load them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = tiny_base(folder / "tiny")
        registry = made_registry(folder, base)
        more = [*TINY_OPTIONS, *options]
        variables = {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        with (
            _serving(folder, base, registry, TINY_CONTEXT, more, variables) as upstream,
            _gateway(folder, registry, upstream) as server,
        ):
            yield Stand(server, registry, folder, base, TOPICS)


@contextmanager
def _gateway(folder: Path, registry: Registry, upstream: RunningServer) -> Iterator[RunningServer]:
    """`traitroute gateway` before one server."""
    port = str(free_port())
    command = [str(Path(sys.executable).with_name("traitroute")), "gateway", "--load", "vllm"]
    command += ["--registry", str(registry.path), "--upstream", upstream.base_url, "--port", port]
    log = folder / "gateway.log"
    with running_process(command, f"http://127.0.0.1:{port}", log_path=log) as server:
        yield server


@contextmanager
def embedded_stand(*, twins: Mapping[str, str] | None = None) -> Iterator[Stand]:
    """The tiny model behind `traitroute serve --engine transformers`; `twins` as in `topic_profile`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = tiny_base(folder / "tiny")
        registry = made_registry(folder / "registry", base, twins=twins)
        with embedded_server(folder / "registry", base, options=["--max-loras", SLOTS]) as server:
            yield Stand(server, registry, folder, base, TOPICS)


@contextmanager
def embedded_server(
    folder: Path, base: Path, *, options: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """The embedded engine over the registry in `folder`, with no setting of ours but those in `variables`."""
    port = str(free_port())
    command = [str(Path(sys.executable).with_name("traitroute")), "serve", str(base), "--engine", "transformers"]
    command += ["--registry", str(folder / "registry.db"), "--port", port, "--max-model-len", str(TINY_CONTEXT)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAITROUTE_")}
    with running_process(
        [*command, *options],
        f"http://127.0.0.1:{port}",
        log_path=folder.with_suffix(".log"),
        environment=environment | dict(variables or {}),
        start_limit_s=START_LIMIT_S,
    ) as server:
        yield server


@contextmanager
def packaged_stand(
    registry_path: Path | None,
    rows: Rows,
    *,
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[Stand]:
    """Serve the registry at `registry_path` with its own base model, else SmolLM2 with a registry made here.

    `rows` are requests for the given registry; a made one has its own.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if registry_path is None:
            base = open_base_model(PACKAGED).path
            registry, rows = made_registry(folder, base, weights=PACKAGED_WEIGHTS), TOPICS
        else:
            registry = Registry.open(registry_path, read_only=True)
            base = open_base_model(registry.servable()[0].base_model).path
        with _serving(folder, base, registry, PACKAGED_CONTEXT, options, variables) as server:
            yield Stand(server, registry, folder, base, rows)


def save_adapter(base: Path, folder: Path, *, seed: int, weights: float = TINY_WEIGHTS, rank: int = RANK) -> Path:
    """Write one LoRA of random weights."""
    save_adapters(base, [folder], weights=weights, first_seed=seed, rank=rank)
    return folder


def save_adapters(
    base: Path, folders: Sequence[Path], *, weights: float, first_seed: int = 0, rank: int = RANK
) -> None:
    """Write LoRAs of random weights, each of a seed of its own."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=MODULES, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    for seed, folder in enumerate(folders, first_seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=weights, generator=generator)
        adapted.save_pretrained(str(folder))


def adapter_record(registry: Registry, folder: Path, name: str, base: Path) -> Adapter:
    """Put the weights of `folder` into the store, and describe them."""
    files = registry.weights.add(folder)
    return Adapter(
        name=name,
        base_model=str(base),
        base_digest=open_base_model(str(base)).digest,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
        state=AdapterState.READY,
    )


def topic_profile(twins: Mapping[str, str] | None = None) -> RoutingProfile:
    """A fitted profile in which each adapter helps the requests of its own topic, and `twins` those of another's."""
    topic = {name: name for name in TOPICS} | dict(twins or {})
    names = list(topic)
    texts = [f"{text} {word}" for rows in TOPICS.values() for text in rows for word in "abcd"]
    tasks = [name for name, rows in TOPICS.items() for _ in range(4 * len(rows))]
    gains = np.array([[0.9 if topic[n] == task else -0.3 for n in names] for task in tasks])
    cells = np.array([[0.9 if topic[n] == task else -0.3 for task in TOPICS] for n in names])
    centred = cells - cells.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    rank = len(TOPICS) - 1
    return fit_profile(names, FitRequests(texts, tasks, gains), (u * s)[:, :rank], n_traits=2, rank=rank)


@contextmanager
def _serving(
    folder: Path,
    base: Path,
    registry: Registry,
    context: int,
    options: Sequence[str],
    variables: Mapping[str, str] | None,
) -> Iterator[RunningServer]:
    with running_server(
        registry.path,
        base,
        registry.servable(),
        log_path=folder / "server.log",
        max_model_len=context,
        options=options,
        variables=variables,
        start_limit_s=START_LIMIT_S,
    ) as server:
        yield server


def made_registry(
    folder: Path, base: Path, *, weights: float = TINY_WEIGHTS, twins: Mapping[str, str] | None = None
) -> Registry:
    """Make a registry of `topic_profile`, with an adapter of random weights for each of its names."""
    folder.mkdir(exist_ok=True)
    registry = Registry.create(folder / "registry.db")
    profile = topic_profile(twins)
    folders = [folder / name for name in profile.adapters]
    save_adapters(base, folders, weights=weights)
    for made in folders:
        registry.add_adapter(adapter_record(registry, made, made.name, base))
    registry.put_profile(profile.to_bytes(), made_up_summary(profile.adapters, list(TOPICS)))
    return registry


def tiny_base(folder: Path, *, template: str = TEMPLATE) -> Path:
    """Write a two-layer Llama of random weights, whose tokenizer knows the chat `template`."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    texts = [f"user: {text}\nassistant:" for rows in TOPICS.values() for text in rows]
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=600, special_tokens=["<s>", "</s>"])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=template,
    ).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).save_pretrained(folder)
    return folder
