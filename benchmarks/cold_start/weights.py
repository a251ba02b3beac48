"""How alike adapters are by their weights alone: matrices (a, a) over their LoRA updates, module by module.

The update of a module, W = s·B·A, is never formed. Its singular vectors are had from QR of B and of Aᵀ and from the SVD
of what is left, (r, r); and all that is compared follows from the products of these vectors, so that the inner product
tr(W₁ᵀ·W₂) costs as much as two products of rank r.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float64]
DIRECTIONS = 4
"""So many leading directions of a module span the subspaces that are compared."""


@dataclass(frozen=True)
class Updates:
    """The updates of a adapters to one module, of ranks up to r: `left` (a, out, r) and `right` (a, in, r) are their
    singular vectors, `sizes` (a, r) their singular values; zero beyond an adapter's own rank.
    """

    left: Array
    sizes: Array
    right: Array

    @classmethod
    def of(cls, pairs: Sequence[tuple[Array, Array]]) -> "Updates":
        """Of every adapter's A (r, in) and s·B (out, r)."""
        rank = max(len(a) for a, _ in pairs)
        found = [_singular(a, b) for a, b in pairs]
        left, sizes, right = (
            np.stack([np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, rank - part.shape[-1])]) for part in parts])
            for parts in zip(*found, strict=True)
        )
        return cls(left, sizes, right)

    @property
    def norms(self) -> Array:
        """Frobenius norms, (a,)."""
        return np.sqrt((self.sizes**2).sum(axis=1))

    def overlaps(self, side: Array) -> Array:
        """Products of all directions of one side (a, n, r), (a, a, r, r)."""
        return np.einsum("inr,jns->ijrs", side, side, optimize=True)


def _singular(a: Array, b: Array) -> tuple[Array, Array, Array]:
    out, inner = np.linalg.qr(b)
    in_, other = np.linalg.qr(a.T)
    left, sizes, right = np.linalg.svd(inner @ other.T)
    return out @ left, sizes, in_ @ right.T


def likenesses(updates: Sequence[Updates]) -> Mapping[str, Array]:
    """Every measure of likeness, each the mean over modules, (a, a)."""
    measures = {name: np.zeros((len(updates[0].sizes),) * 2) for name in MEASURES[:-1]}
    for module in updates:
        of = module.overlaps(module.left), module.overlaps(module.right)
        for name, likeness in zip(measures, _of_module(module.sizes, *of), strict=True):
            measures[name] += likeness / len(updates)
    return measures | {MEASURES[-1]: _by_size(updates)}


MEASURES = ("cosine of updates", "overlap of subspaces", "Arrow's directions", "SpectR's spectra", "norms and spectra")
"""In the order of `_of_module`; the last is of all modules together."""


def _of_module(sizes: Array, left: Array, right: Array) -> tuple[Array, ...]:
    """Cosine of W; mean overlap of the leading subspaces of both sides; squared cosine of the input direction that is
    stretched most (arXiv 2405.11157); cosine of WᵀW, by which SpectR reads tokens (arXiv 2504.03454).
    """
    k = min(DIRECTIONS, sizes.shape[1])
    inner = np.einsum("ir,js,ijrs,ijrs->ij", sizes, sizes, left, right, optimize=True)
    spectra = np.einsum("ir,js,ijrs->ij", sizes**2, sizes**2, right**2, optimize=True)
    spans = [(side[:, :, :k, :k] ** 2).sum(axis=(2, 3)) / k for side in (left, right)]
    return _cosine(inner), (spans[0] + spans[1]) / 2, right[:, :, 0, 0] ** 2, _cosine(spectra)


def _cosine(products: Array) -> Array:
    length = np.sqrt(np.maximum(np.diag(products), 1e-24))
    return products / np.outer(length, length)


def _by_size(updates: Sequence[Updates]) -> Array:
    """Products of each module's norm and stable rank, both logarithms, standardised over the adapters."""
    norms = np.log(np.maximum([u.norms for u in updates], 1e-12))
    largest = np.log(np.maximum([u.sizes[:, 0] for u in updates], 1e-12))
    features = np.concatenate([norms, 2 * (norms - largest)]).T
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    return standard @ standard.T / features.shape[1]


def read_updates(folders: Sequence[Path]) -> list[Updates]:
    """The updates of adapters in PEFT's form to the modules that all of them have."""
    read = [_pairs(folder) for folder in folders]
    shared = [name for name in read[0] if all(name in pairs for pairs in read)]
    return [Updates.of([pairs[name] for pairs in read]) for name in shared]


def _pairs(folder: Path) -> dict[str, tuple[Array, Array]]:
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    pairs = {}
    for name, a in tensors.items():
        if ".lora_A." not in name:
            continue
        b = tensors[name.replace(".lora_A.", ".lora_B.")]
        scale = config["lora_alpha"] / (np.sqrt(len(a)) if config.get("use_rslora") else len(a))
        pairs[name.split(".lora_A.")[0]] = (a.astype(np.float64), scale * b.astype(np.float64))
    return pairs
