"""Adapters merged into one, of the same layers, by PEFT's `add_weighted_adapter`: an ordinary LoRA that servers load.

No base model is loaded: PEFT merges on layers of the right shapes, whose memory is never touched. What the methods do
differs more than their names say. `cat` and `svd` are the weighted sum of what the adapters change, `cat` exactly, in
the sum of their ranks, `svd` as near as a rank allows. `linear`, `ties` and the `dare` methods merge both halves of the
matrices apart, which takes equal ranks and adds what one adapter's first half makes of another's second half.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...adapters import Adapter, InputError, Recipe, WeightsError, WeightStore
from ...adapters.weights.adapter_config import HIGHEST_RANK
from ...adapters.weights.adapter_files import CONFIG, WEIGHTS, AdapterFiles, Layer
from ...serving.engines.local_model import load_weights, peft_config

SUMS = ("cat", "svd")
"""Methods that keep everything, and so take no density."""
HALVES = ("linear", "ties", "dare_linear", "dare_ties")
"""Methods that merge both halves of the matrices apart, and so take equal ranks."""
METHODS = (*SUMS, *HALVES)
DENSITY = 0.5
"""The share of numbers that `ties` and `dare` keep."""
_NAME = "merged"


@dataclass(frozen=True)
class Parent:
    """An adapter that can be merged, with its files as they are in the weight store."""

    adapter: Adapter
    files: AdapterFiles


def read_parents(adapters: Sequence[Adapter], weights: WeightStore) -> list[Parent]:
    """Read adapters that are to be merged with one another.

    Raises:
        InputError: fewer than two are given, one is given twice, or they do not fit together.
        WeightsError: the weights of one are gone, or have changed.
    """
    if len({a.weights_digest for a in adapters}) < len(adapters) or len(adapters) < 2:
        named = ", ".join(a.name for a in adapters) or "none"
        raise InputError(f"a composite is made of two adapters or more, with weights of their own; given: {named}")
    for adapter in adapters:
        check_alone(adapter)
    parents = [Parent(adapter, _files(adapter, weights)) for adapter in adapters]
    for parent in parents:
        _check_pair(parents[0], parent)
    return parents


def check_alone(adapter: Adapter) -> None:
    """Check that an adapter is of a kind that can be merged.

    Raises:
        InputError: it is no LoRA.
    """
    if not adapter.vllm_serves:
        raise InputError(
            f"adapter {adapter.name} is a {adapter.method}, and only LoRAs can be merged into one that servers load: "
            "leave it out"
        )


def _files(adapter: Adapter, weights: WeightStore) -> AdapterFiles:
    try:
        return weights.verify(adapter.weights_digest)
    except WeightsError as exc:
        raise WeightsError(f"adapter {adapter.name} cannot be merged: {exc}") from exc


def _check_pair(first: Parent, other: Parent) -> None:
    one, two = first.adapter, other.adapter
    if other.files.config.fan_in_fan_out or any(layer.embedding for layer in other.files.layers.values()):
        raise InputError(
            f"adapter {two.name} changes embeddings or transposed layers, which are not merged: leave it out"
        )
    if one.base_digest != two.base_digest:
        raise InputError(
            f"adapter {one.name} is for {one.base_model}, and {two.name} for {two.base_model}, or for other weights of "
            "it: only adapters of one base model can be merged"
        )
    if differing := sorted(first.files.layers.keys() ^ other.files.layers.keys()):
        raise InputError(
            f"adapters {one.name} ({', '.join(one.target_modules)}) and {two.name} ({', '.join(two.target_modules)}) "
            f"change different layers, {differing[0]} for one: only adapters of the same target modules can be merged"
        )


def merged_rank(method: str, parents: Sequence[Parent], *, most: int = HIGHEST_RANK) -> int:
    """The rank of what `method` makes of the parents, at most `most`.

    Raises:
        InputError: there is no such method, or it cannot merge adapters of these ranks within that rank.
    """
    if method not in METHODS:
        raise InputError(f"there is no method {method!r} of merging: it is one of {', '.join(METHODS)}")
    ranks = sorted({layer.rank for parent in parents for layer in parent.files.layers.values()})
    if method in HALVES and len(ranks) > 1:
        raise InputError(
            f"method {method} merges layers of one rank, and these have {', '.join(map(str, ranks))}: take svd"
        )
    rank = max(ranks) if method in HALVES else sum(parent.files.rank for parent in parents)
    if method != "svd" and rank > most:
        raise InputError(
            f"method {method} makes an adapter of rank {rank} here, and the limit is {most}: take svd, or raise "
            "--max-rank as far as the servers' max_lora_rank goes"
        )
    return min(rank, most)


class Merger:
    """Merges `parents`, whose weights are read once; the same recipe gives the same bytes on the same machine.

    Raises:
        ImportError: the `profile` extra is missing.
    """

    def __init__(self, parents: Sequence[Parent], weights: WeightStore) -> None:
        try:
            from peft import PeftModel
        except ImportError as exc:
            raise ImportError("merging needs the extra: pip install 'traitroute[profile]'") from exc
        self._parents = {parent.files.digest: parent for parent in parents}
        first = parents[0].files
        self._model: Any = PeftModel(_skeleton(first.layers), peft_config(first), first.digest)
        for digest, parent in self._parents.items():
            if digest != first.digest:
                self._model.add_adapter(digest, peft_config(parent.files))
            load_weights(self._model, weights.path(digest), digest, "cpu")

    def merge(self, recipe: Recipe, folder: Path) -> None:
        """Write the adapter of a recipe to `folder`, in PEFT's format.

        Raises:
            InputError: its method cannot merge its parents to that rank.
        """
        import torch

        parents = [self._parents[digest] for digest in recipe.digests]
        merged_rank(recipe.method, parents, most=recipe.rank)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(recipe.seed)
            tensors = self._combined(recipe, "cat" if recipe.method == "svd" else recipe.method)
            if recipe.method == "svd":
                tensors = _cut(tensors, recipe.rank)
        _write(folder, tensors, parents[0].files)

    def _combined(self, recipe: Recipe, method: str) -> dict[str, Any]:
        import torch
        from peft import get_peft_model_state_dict

        self._model.base_model.add_weighted_adapter(
            adapters=list(recipe.digests),
            weights=list(recipe.weights),
            adapter_name=_NAME,
            combination_type=method,
            density=recipe.density,
        )
        kept = get_peft_model_state_dict(self._model, adapter_name=_NAME, save_embedding_layers=False)
        tensors = {
            name: tensor.detach().float().clone(memory_format=torch.contiguous_format) for name, tensor in kept.items()
        }
        self._model.delete_adapter(_NAME)
        return tensors


def _skeleton(layers: Mapping[str, Layer]) -> Any:
    """The layers at their paths. Their numbers are never written, so that they take no memory."""
    import torch

    root = torch.nn.Module()
    for path, layer in layers.items():
        *parts, last = path.split(".")
        place = root
        for part in parts:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = place.get_submodule(part)
        linear = torch.nn.utils.skip_init(torch.nn.Linear, layer.features_in, layer.features_out, bias=False)
        place.add_module(last, linear)
    return root


def _cut(tensors: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The same as near as a rank allows; with `cat` of small ranks much faster than PEFT's `svd` of whole matrices."""
    import torch

    cut: dict[str, Any] = {}
    for name, first in tensors.items():
        if not name.endswith("lora_A.weight"):
            continue
        other = name.replace("lora_A.weight", "lora_B.weight")
        q_b, r_b = torch.linalg.qr(tensors[other])
        q_a, r_a = torch.linalg.qr(first.T)
        u, s, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        root = s[:rank].sqrt()
        cut[name] = (root[:, None] * (v[:rank] @ q_a.T)).contiguous()
        cut[other] = (q_b @ u[:, :rank] * root).contiguous()
    return cut


def _write(folder: Path, tensors: Mapping[str, Any], like: AdapterFiles) -> None:
    from safetensors.torch import save_file

    rank = max(t.shape[0] for name, t in tensors.items() if name.endswith("lora_A.weight"))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": like.base_model,
        "r": rank,
        # What PEFT merges is scaled already.
        "lora_alpha": rank,
        "target_modules": list(like.target_modules),
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
