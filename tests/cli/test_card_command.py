"""`traitroute adapters show NAME --card` prints a card, or writes it beside the weights."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from made_up_summary import damage_summary, made_up_traits
from traitroute.adapters import Registry

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]


@pytest.fixture
def registry(profiled: Path, tmp_path: Path) -> Path:
    """The registry with a profile whose summary is whole."""
    path = tmp_path / "traitroute.db"
    shutil.copy(profiled, path)
    with Registry.open(path) as store:
        stored = store.profile(1)
        traits = made_up_traits([[1.0, 0.0, 0.0]], explained_variance=[0.9], null=[0.5], p_values=[0.01])
        scores = [[1.0], [0.0], [-1.0]]
        store.put_profile(stored.data, stored.summary.changed(base_model="tiny", traits=traits, trait_scores=scores))
    return path


def test_a_card_opens_with_metadata(run: Run, registry: Path) -> None:
    ended = run("adapters", "show", "cook", "--card", "--registry", registry)
    _, front, text = ended.stdout.split("---\n", 2)
    assert ended.returncode == 0
    assert yaml.safe_load(front)["base_model"] == "tiny"
    assert text.strip().startswith("# cook")
    assert "| cook | 0.10 | 1.00 | +0.90 | estimated |" in text


def test_a_card_is_written_beside_weights_and_over_what_no_person_wrote(
    run: Run, refusal: Refusal, registry: Path, tmp_path: Path
) -> None:
    command = ("adapters", "show", "cook", "--card", "--write", tmp_path, "--registry", registry)
    readme = tmp_path / "README.md"
    readme.write_text("# Model Card\n[More Information Needed]\n")
    for _ in range(2):
        assert run(*command).returncode == 0
        assert "# cook" in readme.read_text()
    readme.write_text("my own words")
    assert "somebody else" in refusal(*command)
    assert readme.read_text() == "my own words"


def test_a_profile_that_tells_too_little_has_no_cards(refusal: Refusal, profiled: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(profiled, tmp_path / "registry.db"))
    with Registry.open(path) as store:
        damage_summary(store, 1, base=None)
    line = refusal("adapters", "show", "cook", "--card", "--registry", path)
    assert "too old to make a card of" in line
