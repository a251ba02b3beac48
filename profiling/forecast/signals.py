"""Signals of a data set, known before an adapter is trained on it, and how a source and a target differ by them.

Of a source the training rows are read, of a target the test rows. Texts are prompt and answer, so that style, syntax
and meaning see both; each reader cuts them at its own limit (linguistics.MAX_CHARACTERS, similarity.MAX_TOKENS,
loss_probe.MAX_TOKENS); lengths are of whole answers.

Signals are kept in a folder beside the registry, `<stem>.signals/<digest>.safetensors` with the arrays and
`<digest>.json` with the rest, written last: without it the signals do not count. The digest covers rows, base model and
readers, not the floating-point type, in which machines differ.

A pair's features depend on its two data sets and on the set of targets alone, never on other sources: leaving a source
out changes nothing in the others' rows. So style, which only means something among data sets, is standardised over the
targets.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.spatial.distance import jensenshannon

from ...adapters import Location, Place
from ...serving.engines.local_model import fastest_precision
from ..analysis import classes, linguistics, similarity
from ..analysis.lengths import wasserstein
from ..analysis.similarity import STYLE_NAMES
from ..base_model import BaseModelFolder
from ..tasks.scoring import judge
from ..tasks.task import Example
from . import loss_probe
from .loss_probe import LossProbe

if TYPE_CHECKING:
    from spacy.language import Language

    from ..analysis.similarity import Encoder


Array = NDArray[np.float64]
Form = Literal["label", "number", "json", "text"]

LENGTHS, TEXTS = 256, 64
"""Examples whose answers are counted, and of these whose texts are parsed and embedded."""
_FORMAT = 1
_ARRAYS = ("lengths", "class_counts", "style", "meaning", "nats", "gradient")


@dataclass(frozen=True)
class Signals:
    """One dataset: `lengths` (n,) of answers in tokens, `class_counts` (labels,), mean `style` and `meaning`.

    `nats` (m,) is the base model's loss per answer token of each example read, `gradient` (512,) as in
    loss_probe.py. `relations` are shares of dependency relations. The form `label` is an answer from a list;
    `number` and `json` are forms of free answers, `text` is any other.
    """

    form: Form
    labels: tuple[str, ...]
    relations: dict[str, float]
    lengths: NDArray[np.int32]
    class_counts: NDArray[np.int64]
    style: Array
    meaning: Array
    nats: Array
    gradient: Array

    @property
    def log_length(self) -> float:
        """Mean of log(1 + answer tokens)."""
        return float(np.log1p(self.lengths).mean())

    @cached_property
    def classes(self) -> classes.ClassSummary | None:
        """Count, entropy and imbalance of the classes, or None where answers come from no list."""
        if not self.labels:
            return None
        return classes.summarise(np.repeat(np.arange(len(self.labels)), self.class_counts), self.labels)

    @property
    def entropy_bits(self) -> float:
        """Of the classes; 0 where there are none."""
        return self.classes.entropy_bits if self.classes else 0.0

    @property
    def nats_per_token(self) -> float:
        """The logarithm of the base model's perplexity, a mean over examples."""
        return float(self.nats.mean())


class SignalReader:
    """Reads signals of data sets, each once; model, parser and encoder are loaded when first needed."""

    def __init__(
        self,
        base: BaseModelFolder,
        folder: Path,
        *,
        parser: "Language | None" = None,
        encoder: "Encoder | None" = None,
        seed: int = 0,
    ) -> None:
        self._base, self._folder, self._seed = base, folder, seed
        self._given_parser, self._given_encoder = parser, encoder
        self._probe = LossProbe(base, seed=seed)

    def read(self, examples: Sequence[Example], *, labels: Sequence[str] = (), metric: str = "exact") -> Signals:
        """Signals of `examples`, from the folder where they were read before.

        Raises:
            BaseModelError: the base model cannot be loaded.
            ImportError: the extras `profile` or `linguistics` are missing.
        """
        kept = list(examples[:LENGTHS])
        place = self._folder / self._digest(kept, labels, metric)
        if (known := _load(place)) is not None:
            return known
        signals = self._measure(kept, tuple(labels), metric)
        _save(signals, place, fastest_precision())
        return signals

    def _measure(self, examples: list[Example], labels: tuple[str, ...], metric: str) -> Signals:
        texts = [f"{e.prompt}\n{e.target}" for e in examples[:TEXTS]]
        parsed = linguistics.parse(texts, self._parser)
        shares = linguistics.profile_syntax(parsed, n_resamples=1).relations
        reading = self._probe.read(examples)
        return Signals(
            form=answer_form(examples, labels, metric),
            labels=labels,
            relations={name: share.value for name, share in shares.items()},
            lengths=self._probe.lengths([e.target for e in examples]),
            class_counts=np.array([sum(e.answer == c for e in examples) for c in labels], np.int64),
            style=similarity.style_features(texts, parsed).values.mean(axis=0),
            meaning=similarity.embed(texts, self._encoder).mean(axis=0, dtype=np.float64),
            nats=reading.nats,
            gradient=reading.gradient,
        )

    def _digest(self, examples: Sequence[Example], labels: Sequence[str], metric: str) -> str:
        rules = [_FORMAT, LENGTHS, TEXTS, linguistics.MAX_CHARACTERS, similarity.MAX_TOKENS, self._seed]
        probe = [getattr(loss_probe, n) for n in ("MAX_TOKENS", "LOSSES", "GRADIENTS", "RANK", "MODULES")]
        rows = [e.model_dump() for e in examples]
        parts = [self._base.digest, rules, probe, list(labels), metric, rows]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def _parser(self) -> "Language":
        return self._given_parser or linguistics.load_parser()

    @cached_property
    def _encoder(self) -> "Encoder":
        return self._given_encoder or similarity.load_encoder()


def signal_folder(registry: Place) -> Path:
    """Where signals are kept for this registry."""
    return Location.parse(registry).beside(".signals")


def answer_form(examples: Sequence[Example], labels: Sequence[str], metric: str) -> Form:
    """The form of a dataset's answers; numbers are known by the answers too, not by the metric alone."""
    if labels:
        return "label"
    if metric == "json":
        return "json"
    numbers = all(judge("number", e.answer, e.answer).lenient for e in examples)
    return "number" if metric == "number" or numbers else "text"


def _save(signals: Signals, place: Path, precision: str) -> None:
    arrays = {name: np.ascontiguousarray(getattr(signals, name)) for name in _ARRAYS}
    record: dict[str, Any] = {
        "format": _FORMAT,
        "form": signals.form,
        "labels": signals.labels,
        "relations": signals.relations,
        "precision": precision,
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    _replace(place.with_suffix(".safetensors"), save(arrays))
    _replace(place.with_suffix(".json"), json.dumps(record).encode())


def _load(place: Path) -> Signals | None:
    """What `_save` wrote; None where it is missing, cut short or of another format."""
    try:
        record = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        arrays = load_file(place.with_suffix(".safetensors"))
        return Signals(
            form=record["form"],
            labels=tuple(record["labels"]),
            relations=record["relations"],
            **{name: arrays[name] for name in _ARRAYS},
        )
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _replace(file: Path, data: bytes) -> None:
    """Write `file` in one step, so that no reader sees half of it."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(file)


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
