"""Adapters are merged as PEFT merges them, into one that is an ordinary LoRA; what does not go together is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from traitroute.adapters import Adapter, InputError, Recipe, WeightsError, WeightStore

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
from traitroute.profiling.composites.merging import METHODS, Merger, merged_rank, read_parents  # noqa: E402

BASE = "0" * 64
WEIGHTS = (0.7, 0.5)


class House:
    """A tiny base model, a weight store, and adapters in it."""

    def __init__(self, tiny: Any, folder: Path) -> None:
        self.tiny, self.folder = tiny, folder
        self.base = tiny.save(folder / "base")
        self.store = WeightStore(folder / "weights")

    def add(self, name: str, seed: int, *, base_digest: str = BASE, **lora: Any) -> Adapter:
        files = self.store.add(self.tiny.save_adapter(self.base, self.folder / name, seed=seed, **lora))
        return files.adapter(name, "tiny", base_digest)

    def merge(self, adapters: list[Adapter], method: str, **changes: Any) -> Path:
        """The folder of the adapters merged."""
        parents = read_parents(adapters, self.store)
        folder = self.folder / f"merged-{method}"
        shutil.rmtree(folder, ignore_errors=True)
        Merger(parents, self.store).merge(recipe(adapters, method, **changes), folder)
        return folder

    def logits(self, model: Any) -> Any:
        with torch.inference_mode():
            return model(input_ids=torch.arange(3, 20)[None]).logits

    def model(self) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(self.base).eval()

    def by_peft(self, adapters: list[Adapter], method: str, rank: int) -> Any:
        """The logits of what PEFT makes of the same adapters, on the whole base model."""
        model = peft.PeftModel.from_pretrained(self.model(), str(self.folder / adapters[0].name), adapters[0].name)
        for adapter in adapters[1:]:
            model.load_adapter(str(self.folder / adapter.name), adapter.name)
        settings = {"svd_rank": rank} if method.endswith("svd") else {}
        model.add_weighted_adapter(
            [a.name for a in adapters],
            list(WEIGHTS),
            "merged",
            combination_type=method,
            density=density(method),
            **settings,
        )
        model.set_adapter("merged")
        return self.logits(model.eval())


def density(method: str) -> float | None:
    """What `dare` keeps is drawn in the order of the layers, which is not the same here and there: so it keeps all."""
    return 1.0 if "dare" in method else 0.5 if "ties" in method else None


def recipe(adapters: list[Adapter], method: str, *, rank: int = 4, kept: float | None = None) -> Recipe:
    return Recipe(
        parents=tuple(a.name for a in adapters),
        digests=tuple(a.weights_digest for a in adapters),
        weights=WEIGHTS,
        method=method,
        rank=2 * rank if method == "cat" else rank,
        density=kept or density(method),
    )


@pytest.fixture
def house(tiny: Any, tmp_path: Path) -> House:
    return House(tiny, tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_merged_answers_as_what_peft_makes_of_the_parents(house: House, method: str) -> None:
    adapters = [house.add("one", 1), house.add("two", 2, lora_alpha=6)]
    merged = house.merge(adapters, method)
    ours = house.logits(peft.PeftModel.from_pretrained(house.model(), str(merged)).eval())
    torch.testing.assert_close(ours, house.by_peft(adapters, method, 4), rtol=1e-3, atol=1e-3)
    assert (ours - house.logits(house.model())).abs().max() > 0.1


def test_cat_adds_what_the_parents_change(house: House) -> None:
    adapters = [house.add("one", 1), house.add("two", 2, r=2, lora_alpha=6)]
    merged = house.store.add(house.merge(adapters, "cat", rank=3))
    assert merged.rank == 6

    def change(folder: Path) -> Any:
        model = peft.PeftModel.from_pretrained(house.model(), str(folder))
        return model.base_model.model.model.layers[1].mlp.up_proj.get_delta_weight("default")

    expected = WEIGHTS[0] * change(house.folder / "one") + WEIGHTS[1] * change(house.folder / "two")
    torch.testing.assert_close(change(house.store.path(merged.digest)), expected)


def test_dare_keeps_a_share_and_the_same_recipe_the_same_one(house: House) -> None:
    adapters = [house.add("one", 1), house.add("two", 2)]
    merged = house.merge(adapters, "dare_linear", kept=0.3)
    first = house.store.add(merged).digest
    a = load_file(merged / "adapter_model.safetensors")["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"]
    assert (a == 0).float().mean() == pytest.approx(0.49, abs=0.15)
    torch.manual_seed(5)
    assert house.store.add(house.merge(adapters, "dare_linear", kept=0.3)).digest == first


@pytest.mark.parametrize("method", METHODS)
def test_no_composite_has_a_higher_rank_than_is_allowed(house: House, method: str) -> None:
    parents = read_parents([house.add("one", 1), house.add("two", 2)], house.store)
    assert merged_rank(method, parents, most=8) == (8 if method in ("cat", "svd") else 4)
    if method == "svd":
        assert merged_rank(method, parents, most=3) == 3
    else:
        with pytest.raises(InputError, match="--max-rank"):
            merged_rank(method, parents, most=3)


def test_halves_of_unequal_ranks_are_not_merged(house: House) -> None:
    parents = read_parents([house.add("one", 1), house.add("two", 2, r=2)], house.store)
    with pytest.raises(InputError, match="take svd"):
        merged_rank("ties", parents)
    with pytest.raises(InputError, match="no method 'mean'"):
        merged_rank("mean", parents)


Spoil = Callable[[House], list[Adapter]]
SPOILT: dict[str, Spoil] = {
    "two adapters or more": lambda house: [house.add("one", 1)],
    "with weights of their own": lambda house: [house.add("one", 1), house.add("one", 1)],
    "only adapters of one base model": lambda house: [house.add("one", 1), house.add("two", 2, base_digest="1" * 64)],
    "two is a dora": lambda house: [house.add("one", 1), house.add("two", 2, use_dora=True)],
    "of the same target modules": lambda house: [house.add("one", 1), house.add("two", 2, modules=["q_proj"])],
}


@pytest.mark.parametrize("why", SPOILT)
def test_what_does_not_go_together_is_refused(house: House, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_parents(SPOILT[why](house), house.store)


def test_an_adapter_whose_weights_are_gone_is_refused_by_name(house: House) -> None:
    adapters = [house.add("one", 1), house.add("two", 2)]
    shutil.rmtree(house.store.path(adapters[1].weights_digest))
    with pytest.raises(WeightsError, match=r"adapter two cannot be merged: no weights"):
        read_parents(adapters, house.store)
