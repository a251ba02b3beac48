import asyncio
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import Adapter, AdapterState, InputError, Registry, ServerError
from traitroute.serving import loading
from traitroute.serving import watcher as following
from traitroute.serving.engines.local_model import fastest_precision
from traitroute.serving.engines.probe import Effect
from traitroute.serving.loading import LoadError
from traitroute.serving.proof import Proof, Verdict
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.vllm import loras
from traitroute.serving.vllm import plugin as plugin_module
from traitroute.serving.vllm.loras import LoraLoader
from traitroute.serving.vllm.options import SPARE_SLOTS, as_stored, lora_modules
from traitroute.serving.vllm.plugin import TraitRoutePlugin, check_vllm
from traitroute.serving.vllm.process import (
    free_port,
    running_process,
    serve_command,
    serve_environment,
)

pytest.importorskip("vllm", reason="the plugin runs inside vLLM: pip install 'traitroute[serve]'")
fastapi = pytest.importorskip("fastapi", reason="the plugin runs inside vLLM's FastAPI app")
torch = pytest.importorskip("torch")

CONFIG = '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}'


def add_adapter(
    registry: Registry,
    name: str,
    folder: Path,
    seed: int = 0,
    given: dict[str, Any] | None = None,
    config: str = CONFIG,
) -> Adapter:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{prefix}.lora_A.weight": rng.normal(size=(4, 8)).astype(np.float32)}
    tensors[f"{prefix}.lora_B.weight"] = rng.normal(size=(8, 4)).astype(np.float32)
    save_file(tensors if given is None else given, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(config)
    files = registry.weights.add(folder)
    adapter = Adapter(
        name=name,
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
    )
    registry.add_adapter(adapter, replace=True)
    return adapter


class SmallEngine:
    """Takes adapters as vLLM's engine client does, or refuses them."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.added: list[Any] = []
        self.removed: list[int] = []

    async def remove_lora(self, lora_id: int) -> bool:
        self.removed.append(lora_id)
        return True

    async def add_lora(self, request: Any) -> bool:
        await asyncio.sleep(0)
        self.added.append(request)
        if self.refusal:
            raise Exception(f"Call to add_lora method failed: {self.refusal}")
        return True


class ProbedEngine(SmallEngine):
    """Answers the probe too: by an adapter as base does, or otherwise; or fails, while it is `dead`."""

    def __init__(self, *, applies: bool) -> None:
        super().__init__()
        self.applies, self.dead = applies, False
        self.tokenizer = WordTokenizer()
        self.model_config = SimpleNamespace(max_logprobs=20, get_vocab_size=lambda: 64)

    async def generate(self, prompt: Any, wanted: Any, request_id: str, *, lora_request: Any) -> AsyncIterator[Any]:
        if self.dead:
            raise RuntimeError("EngineDeadError")
        assert (wanted.max_tokens, wanted.logprobs, wanted.skip_reading_prefix_cache) == (1, 20, True)
        assert max(prompt["prompt_token_ids"]) < 64
        logprob = -2.0 if lora_request is not None and self.applies else -1.0
        yield SimpleNamespace(outputs=[SimpleNamespace(logprobs=[{7: SimpleNamespace(logprob=logprob)}])])


class WordTokenizer:
    """A number for each word, some of them beyond the model's vocabulary."""

    chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [60 + len(word) for word in text.split()]}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.create(tmp_path / "registry.db")


def offered(registry: Registry, *adapters: Adapter) -> RegistrySnapshot:
    return RegistrySnapshot(weights=registry.weights, adapters={a.name: a for a in adapters})


def loader_of(registry: Registry, engine: Any, room: int | None = None) -> tuple[LoraLoader, dict[str, Any]]:
    requests: dict[str, Any] = {}
    loader = LoraLoader(engine, requests, room=room)
    loader.offer(offered(registry, *registry.adapters()))
    return loader, requests


def test_the_installed_vllm_has_every_part_the_plugin_touches() -> None:
    check_vllm()


def test_a_missing_part_is_named_with_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"vllm.lora.request:LoRARequest": ("lora_name", "gone")}
    monkeypatch.setattr(plugin_module, "_TOUCHED", part)
    with pytest.raises(ServerError, match=r"LoRARequest\.gone.*vllm>=0\.26,<0\.34"):
        check_vllm()


def test_concurrent_requests_load_an_adapter_once_under_its_stable_id(registry: Registry, tmp_path: Path) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    engine = SmallEngine()
    loader, requests = loader_of(registry, engine)

    async def run() -> None:
        await asyncio.gather(*(loader.ensure("code") for _ in range(5)))

    asyncio.run(run())
    assert [r.lora_int_id for r in engine.added] == [adapter.serving_id]
    assert requests["code"].lora_path == str(registry.weights.path(adapter.weights_digest))


def test_an_adapter_that_the_engine_ignores_is_unloaded_and_refused(registry: Registry, tmp_path: Path) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    engine = ProbedEngine(applies=False)
    loader, requests = loader_of(registry, engine)
    for _ in range(2):
        with pytest.raises(LoadError, match="code is set aside: asked for it, this server answers as base"):
            asyncio.run(loader.ensure("code"))
    assert (len(engine.added), engine.removed, requests) == (1, [adapter.serving_id], {})
    proof = loader.proof("code")
    assert proof is not None and proof.verdict is Verdict.IDLE


def test_an_adapter_that_changes_the_probe_is_served(registry: Registry, tmp_path: Path) -> None:
    add_adapter(registry, "code", tmp_path / "code")
    loader, requests = loader_of(registry, ProbedEngine(applies=True))
    asyncio.run(loader.ensure("code"))
    assert list(requests) == ["code"]
    assert loader.proof("code") == Proof(Verdict.APPLIED, "a change of 1 nats on the probe, noise 0", Effect(1.0, 0.0))


def test_an_engine_that_cannot_be_probed_serves_and_is_probed_again_later(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_adapter(registry, "code", tmp_path / "code")
    engine = ProbedEngine(applies=False)
    engine.dead = True
    loader, requests = loader_of(registry, engine)
    monkeypatch.setattr(loading, "RETRY_AFTER_S", 0.0)

    async def run() -> list[Proof | None]:
        await loader.ensure("code")
        told = [loader.proof("code")]
        assert list(requests) == ["code"]
        engine.dead = False
        await loader.ensure("code")
        await asyncio.gather(*loader._readers)
        return [*told, loader.proof("code")]

    before, after = asyncio.run(run())
    assert before is not None and after is not None
    assert (before.verdict, before.reason) == (Verdict.UNPROVEN, "the probe could not be read: RuntimeError")
    assert (after.verdict, requests) == (Verdict.IDLE, {})


def test_a_refusal_is_remembered_and_told_without_the_servers_path(registry: Registry, tmp_path: Path) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    path = registry.weights.path(adapter.weights_digest)
    engine = SmallEngine(refusal=f"{path} is of rank 64, greater than max_lora_rank 16")
    loader, requests = loader_of(registry, engine)
    for _ in range(3):
        with pytest.raises(LoadError, match="code: its weights is of rank 64"):
            asyncio.run(loader.ensure("code"))
    assert len(engine.added) == 1
    assert requests == {}


def test_damaged_weights_never_reach_the_engine(registry: Registry, tmp_path: Path) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    shutil.rmtree(registry.weights.path(adapter.weights_digest))
    engine = SmallEngine()
    loader, _ = loader_of(registry, engine)
    with pytest.raises(LoadError, match="damaged or missing"):
        asyncio.run(loader.ensure("code"))
    assert engine.added == []


def test_new_weights_under_an_old_name_are_loaded_anew(registry: Registry, tmp_path: Path) -> None:
    add_adapter(registry, "code", tmp_path / "old")
    engine = SmallEngine()
    loader, requests = loader_of(registry, engine)
    asyncio.run(loader.ensure("code"))
    new = add_adapter(registry, "code", tmp_path / "new", seed=1)
    loader.offer(offered(registry, new))
    asyncio.run(loader.ensure("code"))
    assert requests["code"].lora_int_id == new.serving_id


def test_a_withdrawn_adapter_is_no_longer_served(registry: Registry, tmp_path: Path) -> None:
    add_adapter(registry, "code", tmp_path / "code")
    loader, requests = loader_of(registry, SmallEngine())
    asyncio.run(loader.ensure("code"))
    loader.offer(offered(registry))
    assert requests == {}
    with pytest.raises(LoadError, match="no adapter 'code'"):
        asyncio.run(loader.ensure("code"))


def test_what_is_withheld_is_taken_from_vllm_that_preloaded_it(registry: Registry) -> None:
    loader, requests = loader_of(registry, SmallEngine())
    requests.update({"retired": object(), "vllms-own": object()})
    loader.offer(replace(offered(registry), withheld=frozenset({"retired"})))
    assert list(requests) == ["vllms-own"]


def test_no_adapter_takes_the_slot_that_must_stay_empty(registry: Registry, tmp_path: Path) -> None:
    for seed, name in enumerate(["code", "cook"]):
        add_adapter(registry, name, tmp_path / name, seed=seed)
    loader, requests = loader_of(registry, SmallEngine(), room=1)
    asyncio.run(loader.ensure("code"))
    with pytest.raises(LoadError, match="restart it with --max-loras 3"):
        asyncio.run(loader.ensure("cook"))
    assert list(requests) == ["code"]


def test_a_replaced_adapter_gives_its_slot_away_once_nobody_is_answered_by_it(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "RETRY_AFTER_S", 0.0)
    old = add_adapter(registry, "code", tmp_path / "old")
    engine = SmallEngine()
    loader, requests = loader_of(registry, engine, room=1)
    asyncio.run(loader.ensure("code"))
    new = add_adapter(registry, "code", tmp_path / "new", seed=1)
    loader.offer(offered(registry, new))
    with pytest.raises(LoadError, match="room for 1 adapters"):
        asyncio.run(loader.ensure("code"))
    assert engine.removed == []
    monkeypatch.setattr(loras, "ANSWERED_AFTER_S", 0.0)
    asyncio.run(loader.ensure("code"))
    assert engine.removed == [old.serving_id]
    assert requests["code"].lora_int_id == new.serving_id


def test_an_adapter_of_modules_that_the_server_does_not_adapt_is_refused(registry: Registry, tmp_path: Path) -> None:
    add_adapter(registry, "code", tmp_path / "code")
    engine = SmallEngine()
    loader = LoraLoader(cast(Any, engine), {}, modules=["v_proj"])
    loader.offer(offered(registry, *registry.adapters()))
    with pytest.raises(LoadError, match="--lora-target-modules q_proj v_proj"):
        asyncio.run(loader.ensure("code"))
    assert engine.added == []


def base_folder(folder: Path) -> Path:
    """A base model of one layer, whose projections take 8 features to 8."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    names = [f"model.layers.0.self_attn.{m}.weight" for m in ("q_proj", "v_proj")]
    save_file({n: np.zeros((8, 8), np.float32) for n in names}, folder / "model.safetensors")
    return folder


def layer_tensors(layers: dict[str, int]) -> dict[str, Any]:
    """The matrices of layers by their paths, of as many features in."""
    shapes = {f"{n}.lora_A": (4, width) for n, width in layers.items()}
    shapes |= {f"{n}.lora_B": (8, 4) for n in layers}
    return {f"base_model.model.{n}.weight": np.ones(shape, np.float32) for n, shape in shapes.items()}


LAYER = "model.layers.0.self_attn.q_proj"
PARTS = [
    {f"_orig_mod.{LAYER}": 8},
    {f"language_model.{LAYER}": 8},
    {LAYER: 8, f"_orig_mod.{LAYER}": 8},
    {LAYER: 8, "model.layers.7.self_attn.q_proj": 8},
    {LAYER: 8, "model.layers.0.mlp.q_proj": 8},
    # vLLM copies it into a corner of the layer's own.
    {LAYER: 4},
    {LAYER: 16},
]


@pytest.mark.parametrize("layers", PARTS)
@pytest.mark.parametrize("at_hand", [True, False])
def test_what_vllm_would_serve_in_part_never_reaches_the_engine(
    registry: Registry, tmp_path: Path, layers: dict[str, int], at_hand: bool
) -> None:
    add_adapter(registry, "code", tmp_path / "code")
    registry.set_state("code", AdapterState.READY)
    add_adapter(registry, "half", tmp_path / "half", given=layer_tensors(layers))
    if at_hand:
        registry.set_state("half", AdapterState.READY)
    engine: Any = SmallEngine()
    base = base_folder(tmp_path / "base") if at_hand else None
    loader = LoraLoader(engine, {}, base=base)
    loader.offer(offered(registry, *registry.adapters()))
    with pytest.raises(LoadError, match=r"^half: "):
        asyncio.run(loader.ensure("half"))
    assert engine.added == []
    asyncio.run(loader.ensure("code"))


def test_an_adapter_of_another_base_model_never_reaches_the_engine(registry: Registry, tmp_path: Path) -> None:
    add_adapter(registry, "code", tmp_path / "code")
    engine: Any = SmallEngine()
    loader = LoraLoader(engine, {}, base_digest="1" * 64)
    loader.offer(offered(registry, *registry.adapters()))
    with pytest.raises(LoadError, match="trained for tiny, not for this base"):
        asyncio.run(loader.ensure("code"))
    assert engine.added == []


def started_plugin(use: Callable[[TraitRoutePlugin], Any]) -> TraitRoutePlugin:
    models = SimpleNamespace(lora_requests={}, base_model_paths=[SimpleNamespace(name="tiny")])
    config = SimpleNamespace(
        lora_config=SimpleNamespace(max_loras=4, target_modules=None),
        model_config=SimpleNamespace(model="acme/tiny", revision=None),
    )
    state: Any = SimpleNamespace(openai_serving_models=models, vllm_config=config)
    engine: Any = SmallEngine()
    args: Any = None

    async def run() -> TraitRoutePlugin:
        plugin = TraitRoutePlugin()
        plugin.attach_router(fastapi.FastAPI())
        await plugin.init_state(engine, state, args)
        await use(plugin)
        return plugin

    return asyncio.run(run())


async def nothing(_: TraitRoutePlugin) -> None: ...


def test_without_a_readable_registry_the_server_still_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAITROUTE_REGISTRY", str(tmp_path / "absent.db"))
    state = started_plugin(nothing).state
    assert state.snapshot.router is None
    assert state.snapshot.no_router == "no-profile: the registry cannot be read"
    assert state.base_names == ("tiny",)


def test_an_adapter_added_while_serving_is_offered(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAITROUTE_REGISTRY", str(registry.path))
    monkeypatch.setattr(following, "POLL_S", 0.01)

    async def add_and_wait(plugin: TraitRoutePlugin) -> None:
        assert plugin.state.snapshot.adapters.keys() == frozenset()
        add_adapter(registry, "code", tmp_path / "code")
        registry.set_tags("code", ["work"])
        async with asyncio.timeout(5):
            while not plugin.state.snapshot.tags_of("code"):
                await asyncio.sleep(0.01)

    state = started_plugin(add_and_wait).state
    assert state.snapshot.adapters.keys() == {"code"}
    assert state.snapshot.tags_of("code") == ("work",)
    assert state.snapshot.no_router.startswith("no-profile: ")


def test_the_command_makes_room_for_every_adapter(registry: Registry, tmp_path: Path) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    wide = adapter.model_copy(update={"rank": 20, "target_modules": ("v_proj",)})
    command = " ".join(serve_command("org/tiny", [adapter, wide], port=1234))
    assert "--served-model-name org/tiny base" in command
    slots = 2 + SPARE_SLOTS + (not torch.cuda.is_available())
    assert f"--max-lora-rank 32 --max-loras {slots} --max-cpu-loras {slots}" in command
    assert "--lora-target-modules q_proj v_proj" in command


HOSTILE = [
    "!",
    "--host=0.0.0.0",
    "--api-key=x",
    "-x",
    "",
    "q proj",
    "q_proj\n",
    "café",
    "a.b",
    "x" * 400,
]


@pytest.mark.parametrize("module", HOSTILE)
def test_what_an_older_registry_says_of_modules_reaches_no_command_line(
    caplog: pytest.LogCaptureFixture, registry: Registry, tmp_path: Path, module: str
) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    bad = adapter.model_copy(update={"name": "bad", "target_modules": ("v_proj", module)})
    alone = serve_command("org/tiny", [adapter], port=1234)
    assert serve_command("org/tiny", [adapter, bad], port=1234) == alone
    assert "bad is left out of vLLM's options" in caplog.text
    (told,) = [record.message for record in caplog.records]
    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 200


def test_what_is_no_layer_of_the_base_model_is_not_named_to_vllm(registry: Registry, tmp_path: Path) -> None:
    """vLLM ends with an error where it is told to adapt a module that is none of its linear layers."""
    add_adapter(registry, "code", tmp_path / "code")
    block = layer_tensors({"model.layers.0.self_attn": 8})
    config = CONFIG.replace("q_proj", "self_attn")
    add_adapter(registry, "block", tmp_path / "block", given=block, config=config)
    base = base_folder(tmp_path / "base")
    taken, left_out = as_stored(registry.adapters(), registry.weights, base)
    assert [adapter.name for adapter in taken] == ["code"]
    assert left_out == {"block": "it changes self_attn, which is no layer of this base model"}


def test_all_experts_of_a_mixture_are_one_module_of_vllms() -> None:
    """Named by its own name, it would not be adapted, and the adapter served without it."""
    paths = ["model.layers.0.mlp.experts.3.down_proj", "model.layers.0.self_attn.q_proj"]
    assert lora_modules(paths) == {"experts", "q_proj"}


def test_a_rank_beyond_what_vllm_serves_does_not_keep_it_from_starting(
    caplog: pytest.LogCaptureFixture, registry: Registry, tmp_path: Path
) -> None:
    adapter = add_adapter(registry, "code", tmp_path / "code")
    bad = adapter.model_copy(update={"name": "bad", "rank": 2**70})
    alone = serve_command("org/tiny", [adapter], port=1234)
    assert serve_command("org/tiny", [adapter, bad], port=1234) == alone
    assert "vLLM serves up to 512" in caplog.text


@pytest.mark.parametrize("place", [{"base_model": "--api-key=x"}, {"host": "-h"}])
def test_no_value_is_read_as_a_flag(place: dict[str, str]) -> None:
    with pytest.raises(InputError, match="would be read as a flag"):
        serve_command(**{"base_model": "org/tiny", "adapters": [], **place})  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's type is vLLM's choice")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cpu_serves_in_the_precision_that_it_measures_in(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setenv("TRAITROUTE_PRECISION", precision)
    fastest_precision.cache_clear()
    command = serve_command("org/tiny", [], port=1234, options=["--dtype", "float16"])
    fastest_precision.cache_clear()
    assert command[command.index("--dtype") + 1] == precision
    # What a user asks for comes last, and vLLM goes by the last.
    assert command[-2:] == ["--dtype", "float16"]


def test_the_environment_keeps_what_the_user_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    environment = serve_environment(tmp_path / "registry.db", "org/tiny")
    assert environment["VLLM_PLUGINS"] == "other,traitroute"
    assert environment["DO_NOT_TRACK"] == "0"
    assert float(environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > 60
    assert environment["TRAITROUTE_REGISTRY"] == str((tmp_path / "registry.db").resolve())


def test_time_of_a_decision_is_set_in_milliseconds() -> None:
    assert plugin_module._budget_s("200") == 0.2
    for wrong in ("", "fast", "0", "nan", "1e9"):
        with pytest.raises(ServerError, match="TRAITROUTE_BUDGET_MS"):
            plugin_module._budget_s(wrong)


def test_a_control_group_that_cannot_be_keeps_the_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_HOLDBACK", "0.9")
    with pytest.raises(InputError, match=r"TRAITROUTE_HOLDBACK is '0\.9': give a share from 0 \(off\) to 0\.5"):
        TraitRoutePlugin().attach_router(fastapi.FastAPI())
    monkeypatch.setenv("TRAITROUTE_HOLDBACK", "0.02")
    plugin = TraitRoutePlugin()
    plugin.attach_router(fastapi.FastAPI())
    assert plugin.state.experiment.holdback == 0.02


def test_our_warnings_are_told_whatever_vllm_imports() -> None:
    TraitRoutePlugin().attach_router(fastapi.FastAPI())
    logging.getLogger().setLevel(logging.ERROR)
    assert logging.getLogger("traitroute.serving.watcher").isEnabledFor(logging.WARNING)


def test_a_proxy_does_not_stand_before_a_server_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "health").touch()
    port = free_port()
    server = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)]
    command, url = [sys.executable, *server], f"http://127.0.0.1:{port}"
    with running_process(command, url, log_path=tmp_path / "log", start_limit_s=20) as running:
        assert running.pid > 0
