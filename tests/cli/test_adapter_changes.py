"""`traitroute adapters add`, `replace`, `withdraw`, `remove`, `disable`, `enable` and `tag`: messages and effects."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import Adapter, AdapterState, Registry

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save an adapter for the base model `tiny`."""

    def save(name: str, *, fill: float = 0.5, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
        config |= {"base_model_name_or_path": "tiny"} | changes
        (folder / "adapter_config.json").write_text(json.dumps(config))
        stem = "base_model.model.model.layers.0.self_attn.q_proj"
        halves = {"A": np.full((2, 8), fill, "f4"), "B": np.full((8, 2), fill, "f4")}
        tensors = {f"{stem}.lora_{side}.weight": half for side, half in halves.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return save


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A registry with one adapter, which is ready."""
    path = tmp_path / "team.db"
    with Registry.create(path) as registry:
        registry.add_adapter(
            Adapter(
                name="old",
                base_model="tiny",
                base_digest="0" * 64,
                weights_digest="1" * 64,
                rank=2,
                target_modules=("q_proj",),
                state=AdapterState.READY,
            )
        )
    return path


def adapter(path: Path, name: str) -> Adapter:
    with Registry.open(path, read_only=True) as registry:
        return registry.adapter(name)


def test_add_says_what_came_and_what_comes_next(run: Run, team: Path, save: Save) -> None:
    ended = run("adapters", "add", "polite", save("p"), "--tags", "tone, en", "--registry", team)
    assert ended.returncode == 0, ended.stderr
    assert "added polite version 1 (lora, rank 2, weights " in ended.stdout
    assert f"traitroute profile --registry {team} --adapter polite --targets FOLDER" in ended.stdout
    assert adapter(team, "polite").state is AdapterState.PENDING
    assert adapter(team, "polite").tags == ("tone", "en")


def test_a_relative_folder_is_found_and_kept_as_an_absolute_one(
    run: Run, team: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save("p")
    monkeypatch.chdir(folder.parent)
    assert run("adapters", "add", "polite", "p", "--registry", team).returncode == 0
    assert adapter(team, "polite").uri == str(folder)


def test_the_same_add_again_changes_nothing(run: Run, team: Path, save: Save) -> None:
    command = ("adapters", "add", "polite", save("p"), "--registry", team)
    run(*command)
    ended = run(*command)
    assert ended.returncode == 0
    assert "there already with these weights (pending)" in ended.stdout


def test_what_is_wrong_with_an_add_is_one_line(refusal: Refusal, team: Path, save: Save) -> None:
    dora = save("dora", use_dora=True)
    other = save("other", base_model_name_or_path="acme/other")
    assert "is a DoRA" in refusal("adapters", "add", "d", dora, "--registry", team)
    assert "--same-base" in refusal("adapters", "add", "o", other, "--registry", team)
    assert "cannot be a name" in refusal("adapters", "add", "../x", dora, "--registry", team)
    assert "no adapter folder" in refusal("adapters", "add", "x", "./gone", "--registry", team)


def test_the_hub_is_off_until_it_is_allowed(refusal: Refusal, team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAITROUTE_ALLOWED_SOURCES", raising=False)
    command = ("adapters", "add", "x", "acme/polite", "--registry", team)
    assert "the Hub is switched off here" in refusal(*command)
    pytest.importorskip("huggingface_hub")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "cannot be read" in refusal(*command, "--allow-root", "hub")


def test_the_first_adapter_needs_a_base_model(run: Run, refusal: Refusal, tmp_path: Path, save: Save) -> None:
    base = tmp_path / "tiny"
    base.mkdir()
    (base / "config.json").write_text("{}")
    weight = {"model.layers.0.self_attn.q_proj.weight": np.zeros((8, 8), "f4")}
    save_file(weight, base / "model.safetensors")
    new, folder = tmp_path / "new.db", save("p")
    assert "no registry at" in refusal("adapters", "add", "polite", folder, "--registry", new)
    ended = run("adapters", "add", "polite", folder, "--registry", new, "--base", base)
    assert ended.returncode == 0, ended.stderr
    assert adapter(new, "polite").base_model == str(base)


def test_a_replacement_waits_and_can_be_withdrawn(run: Run, team: Path, save: Save) -> None:
    run("adapters", "add", "polite", save("p"), "--registry", team)
    old = adapter(team, "polite")
    ended = run("adapters", "replace", "polite", save("q", fill=0.25), "--registry", team)
    assert "polite version 2" in ended.stdout
    assert "waits to replace version 1" in ended.stdout
    assert adapter(team, "polite") == old
    assert "polite version 2 waits" in run("adapters", "list", "--registry", team).stdout
    ended = run("adapters", "withdraw", "polite", "--registry", team)
    assert "polite stays as it is" in ended.stdout


def test_remove_asks_first(run: Run, refusal: Refusal, team: Path) -> None:
    asked = run("adapters", "remove", "old", "--registry", team, stdin=b"n\n")
    assert asked.returncode == 1
    assert adapter(team, "old").state is AdapterState.READY
    assert run("adapters", "remove", "old", "--yes", "--registry", team).returncode == 0
    assert "no adapter named 'old'" in refusal("adapters", "show", "old", "--registry", team)


def test_disable_keeps_the_reason_and_enable_takes_it_back(run: Run, team: Path) -> None:
    run("adapters", "disable", "old", "--note", "answers in French", "--registry", team)
    assert adapter(team, "old").state is AdapterState.DISABLED
    assert adapter(team, "old").note == "answers in French"
    assert "old is ready" in run("adapters", "enable", "old", "--registry", team).stdout
    assert adapter(team, "old").note is None


def test_tags_are_replaced_and_removed(run: Run, refusal: Refusal, team: Path) -> None:
    assert "tagged a, b" in run("adapters", "tag", "old", "a", "b", "--registry", team).stdout
    assert adapter(team, "old").tags == ("a", "b")
    assert "cannot be a name" in refusal("adapters", "tag", "old", "a b", "--registry", team)
    assert "no tags now" in run("adapters", "tag", "old", "--registry", team).stdout
