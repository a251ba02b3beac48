"""`traitroute traits`: what is shown of the components, and labels that users give them."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_summary import damage_summary, made_up_summary, made_up_traits, steady
from traitroute.adapters import Registry, TraitName

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]


LOADINGS = [[0.8, -0.6, 0.0], [0.0, 0.0, 1.0]]


def registry_with(path: Path, **changes: Any) -> Path:
    """Two components of three adapters on three tasks, of which only the first exceeds its null."""
    traits = {
        "explained_variance": [0.71, 0.29],
        "null": [0.62, 0.41],
        "n_traits": 1,
        "p_values": [0.004, 0.37],
        "names": [
            TraitName(name="math up, imdb down", evidence="Math leads."),
            TraitName(name="unsupported: mnli up", evidence="Noise."),
        ],
        "by_examples": steady(LOADINGS, median=[0.97, 0.61], chance=0.55),
        "by_adapters": steady(LOADINGS, median=[0.88, 0.5]),
    }
    summary = made_up_summary(
        ["coder", "cook", "critic"],
        ["gsm8k", "imdb", "mnli"],
        trait_scores=[[0.21, 0.01], [-0.11, 0.02], [-0.1, -0.03]],
        traits=made_up_traits(LOADINGS, **traits | changes),
    )
    with Registry.create(path) as registry:
        registry.put_profile(b"", summary)
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    return registry_with(tmp_path / "measured.db")


def rows(stdout: str) -> dict[str, list[str]]:
    """Cells of every table row by its first cell."""
    lines = [line.strip("│") for line in stdout.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in ([c.strip() for c in line.split("│")] for line in lines)}


def test_every_component_is_shown_with_its_evidence(run: Run, measured: Path) -> None:
    ended = run("traits", "--registry", measured)
    shown = rows(ended.stdout)
    assert ended.returncode == 0
    assert shown["1"][:5] == ["71.0%", "62.0%", "0.004", "0.97, 0.88", "math up, imdb down"]
    assert shown["1"][5:] == ["", "gsm8k +0.80, imdb -0.60, mnli +0.00"]
    assert shown["2"][2:5] == ["0.370", "0.61, 0.50", "unsupported: mnli up"]
    assert "1: math up, imdb down. Math leads." in ended.stdout
    assert "Noise." not in ended.stdout
    assert "by chance 0.55" in ended.stdout


def test_adapters_are_projected_on_the_components(run: Run, measured: Path) -> None:
    shown = rows(run("traits", "--registry", measured).stdout)
    assert shown["coder"] == ["+0.21", "+0.01"]
    assert shown["critic"] == ["-0.10", "-0.03"]


def test_a_label_is_set_shown_and_removed(run: Run, measured: Path) -> None:
    ended = run("traits", "--label", "1=stops [early] = soon", "--registry", measured)
    assert ended.returncode == 0
    assert "component 1 of profile version 1 is called 'stops [early] = soon'" in ended.stdout
    assert rows(run("traits", "--registry", measured).stdout)["1"][5] == "stops [early] = soon"
    assert "has no label" in run("traits", "--label", "1=", "--registry", measured).stdout
    with Registry.open(measured, read_only=True) as registry:
        assert registry.profile(1).summary.traits.labels == {}


def test_several_labels_are_set_at_once(run: Run, measured: Path) -> None:
    run("traits", "--label", "1=counts", "--label", "2=chats", "--registry", measured)
    with Registry.open(measured, read_only=True) as registry:
        assert registry.profile(1).summary.traits.labels == {1: "counts", 2: "chats"}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("stops early", "--label is COMPONENT=NAME"),
        ("one=stops early", "not 'one=stops early'"),
        ("3=stops early", "no component 3: it has 2"),
        ("1=" + "x" * 81, "1 to 80 printable"),
    ],
)
def test_a_label_that_cannot_be_is_refused(refusal: Refusal, measured: Path, label: str, message: str) -> None:
    assert message in refusal("traits", "--label", label, "--registry", measured)


def test_components_above_the_null_only_after_one_that_is_not_are_no_traits(run: Run, tmp_path: Path) -> None:
    path = registry_with(tmp_path / "late.db", explained_variance=[0.6, 0.42], n_traits=1)
    assert "claimed: none" in run("traits", "--registry", path).stdout


def test_a_registry_without_a_profile_is_told_what_to_run(refusal: Refusal, tmp_path: Path) -> None:
    Registry.create(tmp_path / "empty.db").close()
    line = refusal("traits", "--registry", tmp_path / "empty.db")
    assert "holds no profile yet: run `traitroute profile`" in line


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"traits": None}, "version 1 lacks traits: run `traitroute profile` again"),
        ({"tasks": ["one"]}, "version 1 cannot be read (scores has shape (3, 3), (3, 1) expected)"),
    ],
)
def test_a_summary_that_cannot_be_read_is_told_what_to_run(
    refusal: Refusal, measured: Path, part: dict[str, Any], message: str
) -> None:
    with Registry.open(measured) as registry:
        damage_summary(registry, 1, **part)
    assert f"the summary of profile {message}" in refusal("traits", "--registry", measured)
