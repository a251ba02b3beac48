"""How a source and a target differ, as numbers for every pair: what forecasts of gains are made from.

A pair's features depend on the two datasets and on the set of targets alone, never on other sources: leaving
a source out changes nothing in the others' rows. So style, which only means something among datasets, is
standardised over the targets.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from ..analysis.lengths import wasserstein
from ..analysis.similarity import STYLE_NAMES
from .signals import Signals

Array = NDArray[np.float64]

HIDDEN = (
    "length distance",
    "length difference",
    "same answer form",
    "label overlap",
    "class entropy difference",
    "syntax distance",
)
STYLE, MEANING, GRADIENT = "style cosine", "semantic cosine", "gradient cosine"
PERPLEXITY = ("source log perplexity", "target log perplexity")
BASE_SCORE = "base score"
NAMES = (*HIDDEN, STYLE, MEANING, GRADIENT, *PERPLEXITY, BASE_SCORE)


@dataclass(frozen=True)
class PairFeatures:
    """`values` (sources, tasks, features), a feature for each of `names`."""

    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    names: tuple[str, ...]
    values: Array

    def part(self, names: Sequence[str]) -> Array:
        """The features called `names`, in this order: (sources, tasks, len(names))."""
        return self.values[:, :, [self.names.index(name) for name in names]]

    def rows(self, sources: Sequence[str]) -> Self:
        """The features of these sources, in this order."""
        kept = [self.sources.index(name) for name in sources]
        return type(self)(tuple(sources), self.tasks, self.names, self.values[kept])


def pair_features(sources: Mapping[str, Signals], targets: Mapping[str, Signals], base_scores: Array) -> PairFeatures:
    """Features of every source with every target; `base_scores` (targets,) are the base model's."""
    seen = list(targets.values())
    center, scale = _standard([t.style for t in seen])
    styles = {id(s): (s.style - center) * scale for s in [*sources.values(), *seen]}
    values = [
        [
            [
                *_hidden(s, t),
                _cosine(styles[id(s)], styles[id(t)]),
                _cosine(s.meaning, t.meaning),
                _cosine(s.gradient, t.gradient),
                s.nats_per_token,
                t.nats_per_token,
                score,
            ]
            for t, score in zip(seen, base_scores, strict=True)
        ]
        for s in sources.values()
    ]
    return PairFeatures(tuple(sources), tuple(targets), NAMES, np.array(values))


def _hidden(source: Signals, target: Signals) -> tuple[float, ...]:
    """Lengths on the log1p scale: the distance says how unlike they are, the difference which is longer."""
    return (
        wasserstein(np.log1p(source.lengths), np.log1p(target.lengths)),
        source.log_length - target.log_length,
        float(source.form == target.form),
        _overlap(source.labels, target.labels),
        abs(source.entropy_bits - target.entropy_bits),
        _syntax_distance(source.relations, target.relations),
    )


def _overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Labels in both over labels in either, without regard to case; 0 where there are none."""
    first, second = ({name.casefold() for name in labels} for labels in (a, b))
    return len(first & second) / max(1, len(first | second))


def _syntax_distance(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    names = sorted({*a, *b})
    shares = [[relations.get(name, 0.0) for name in names] for relations in (a, b)]
    return float(jensenshannon(shares[0], shares[1], base=2))


def _standard(styles: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and scale of each style feature; one that does not vary weighs nothing, and families weigh alike."""
    spread = np.std(styles, axis=0)
    scale = np.where(spread > 1e-12, 1 / np.maximum(spread, 1e-12), 0.0)
    families = [name.split(":")[0] for name in STYLE_NAMES]
    sizes = Counter(families)
    return np.mean(styles, axis=0), scale / np.sqrt([sizes[family] for family in families])


def _cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))
