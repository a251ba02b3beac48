"""`traitroute serve`: the base must be the one that the adapters were trained for."""

import importlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import Adapter, Registry
from traitroute.profiling import open_base_model

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]
Taken = list[tuple[str, list[str], dict[str, str]]]

needs_vllm = pytest.mark.skipif(not find_spec("vllm"), reason="needs vLLM: traitroute[serve]")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What passes for a base model as long as nobody loads it."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.zeros(2, dtype=np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def registry(tmp_path: Path, base: Path) -> Path:
    """A registry with one adapter for `base`."""
    path = tmp_path / "registry.db"
    adapter = Adapter(
        name="coder",
        base_model=str(base),
        base_digest=open_base_model(str(base)).digest,
        weights_digest="1" * 64,
        rank=8,
        target_modules=("q_proj",),
    )
    with Registry.create(path) as store:
        store.add_adapter(adapter)
    return path


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    """What this process would have become: a server that starts must not take over the tests."""
    calls: Taken = []
    monkeypatch.setattr(os, "execvpe", lambda *given: calls.append(given))
    return calls


def test_adapters_of_another_base_are_refused_by_name(refusal: Refusal, profiled: Path, base: Path) -> None:
    line = refusal("serve", base, "--registry", profiled)
    assert "coder, cook, critic, fresh were trained for tiny" in line


def test_a_base_changed_since_training_is_refused(refusal: Refusal, registry: Path, base: Path) -> None:
    (base / "config.json").write_text('{"changed": true}')
    line = refusal("serve", "--registry", registry)
    assert "coder were trained for" in line
    assert "as it is now" in line


def test_a_folder_without_weights_is_no_base(refusal: Refusal, registry: Path, base: Path) -> None:
    (base / "model.safetensors").unlink()
    assert f"{base} is not a base model" in refusal("serve", "--registry", registry)


def test_an_empty_registry_asks_for_the_base(refusal: Refusal, tmp_path: Path) -> None:
    Registry.create(tmp_path / "empty.db").close()
    assert "name the base model" in refusal("serve", "--registry", tmp_path / "empty.db")


def test_a_missing_registry_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    assert "no registry at" in refusal("serve", "--registry", tmp_path / "nosuch.db")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--engine", "transformers", "--vllm", "--x"), "--vllm gives flags to `vllm serve`"),
        (("--engine", "transformers", "--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY is not set"),
        (("--engine", "transformers", "--cors-origin", "https://a/"), "'https://a/' is no origin"),
        (("--engine", "transformers", "--cors-origin", "*"), "set a key, or name the origins"),
        (("--engine", "transformers"), "holds no causal language model"),
        pytest.param(("--max-loras", "2"), "vLLM takes its own", marks=needs_vllm),
        pytest.param(("--queue", "2"), "vLLM takes its own", marks=needs_vllm),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, registry: Path, options: tuple[str, ...], told: str
) -> None:
    ended = run("serve", "--registry", registry, *options)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_vllm_the_embedded_server_serves_and_says_so(
    run: Run, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module("traitroute.cli.serve")
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    ended = run("serve", "--registry", registry)
    assert "vLLM is not installed: serving with transformers" in ended.stdout
    # As far as it gets: this base holds no model.
    assert "holds no causal language model" in ended.stderr
    refused = run("serve", "--registry", registry, "--engine", "vllm")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "use --engine transformers" in refused.stderr


def save_adapter(folder: Path, *, rank: int, module: str) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": [module]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    stem = f"base_model.model.model.layers.0.self_attn.{module}.lora_"
    halves = {f"{stem}A.weight": np.ones((rank, 8), "f4"), f"{stem}B.weight": np.ones((8, rank), "f4")}
    save_file(halves, folder / "adapter_model.safetensors")
    return folder


@needs_vllm
def test_no_bad_adapter_keeps_the_server_from_starting(
    run: Run, registry: Path, base: Path, taken: Taken, tmp_path: Path
) -> None:
    """Each of an older registry: what it says of rank and modules is not what the tensors are."""
    digest = open_base_model(str(base)).digest

    def record(name: str, rank: int, module: str, said: dict[str, Any]) -> Path:
        files = store.weights.add(save_adapter(tmp_path / name, rank=rank, module=module))
        known = {"base_digest": digest, "rank": rank, "target_modules": (module,)}
        known |= {"name": name, "base_model": str(base), "weights_digest": files.digest}
        store.add_adapter(Adapter(**known | said))
        return store.weights.path(files.digest) / "adapter_model.safetensors"

    with Registry.open(registry) as store:
        hostile = ("!", "--host=0.0.0.0", "--api-key=x")
        record("wide", 16, "v_proj", {"rank": 4, "target_modules": hostile})
        record("paths", 8, "k_proj", {"target_modules": ("self_attn.k_proj",)})
        record("boasting", 2, "o_proj", {"rank": 2**40})
        record("other", 64, "up_proj", {"base_digest": "2" * 64})
        cut = record("cut", 3, "gate_proj", {})
        cut.chmod(0o644)
        cut.write_bytes(cut.read_bytes()[:-8])
    ended = run("serve", "--registry", registry)
    ((_, command, environment),) = taken
    line = " ".join(command)
    assert "--max-lora-rank 16 " in line
    assert "--lora-target-modules k_proj o_proj v_proj" in line
    assert "0.0.0.0" not in line
    assert environment["TRAITROUTE_BASE_DIGEST"] == digest
    assert "and 3 adapters on" in ended.stdout
    assert "not served: coder: no weights 111" in ended.stdout
    assert "not served: other: it was trained for" in ended.stdout
    assert re.search("not served: cut: .* is truncated or corrupt", ended.stdout)


@needs_vllm
def test_the_api_key_reaches_vllm_in_its_environment_only(
    run: Run, registry: Path, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "hush")
    run("serve", "--registry", registry, "--api-key-env", "A_KEY")
    ((_, command, environment),) = taken
    assert environment["VLLM_API_KEY"] == "hush"
    assert "hush" not in command


@needs_vllm
def test_the_origins_of_pages_reach_vllm_by_its_own_flag(
    run: Run, registry: Path, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("serve", "--registry", registry, "--cors-origin", "https://a.example")
    monkeypatch.setenv("TRAITROUTE_CORS_ORIGINS", "https://a.example http://localhost:3000")
    run("serve", "--registry", registry)
    first, second = (command for _, command, _ in taken)
    assert '--allowed-origins=["https://a.example"]' in first
    assert '--allowed-origins=["https://a.example", "http://localhost:3000"]' in second


@needs_vllm
def test_vllm_takes_over_with_our_plugin_and_the_users_flags(
    run: Run, registry: Path, base: Path, taken: Taken
) -> None:
    ended = run("serve", "--registry", registry, "--port", "9001", "--vllm", "--api-key=k")
    ((program, command, environment),) = taken
    assert ended.returncode == 0
    assert Path(program).name == "vllm"
    assert command[1:3] == ["serve", str(base)]
    assert command[-1] == "--api-key=k"
    assert "traitroute" in environment["VLLM_PLUGINS"].split(",")
    assert environment["TRAITROUTE_REGISTRY"] == str(registry)
