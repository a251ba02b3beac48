"""Does likeness of data explain transfer? Style and meaning of the data sets, tested against the gains.

A data set's texts are prompt and target together: training rows of a source, test rows of the other tasks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..analysis.agreement import Mantel, mantel
from ..analysis.similarity import Similarity, embed, semantic_similarity, style_features, style_similarity
from ..study import Study
from ..tasks.scoring import Score
from .corpus import Corpus
from .gains import SCORES
from .missing import Missing, attempt

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MantelRow:
    """The test of one kind of similarity against the gains by one score."""

    similarity: str
    score: Score
    test: Mantel | Missing


@dataclass(frozen=True)
class SimilarityFindings:
    """Similarities over all tasks; `tests` compare their rows of sources with the gains."""

    sources: tuple[str, ...]
    texts: int
    style: Similarity | Missing
    semantic: Similarity | Missing
    tests: tuple[MantelRow, ...]

    @property
    def kinds(self) -> dict[str, Similarity]:
        """The similarities that could be measured, by name."""
        both = {"style": self.style, "semantic": self.semantic}
        return {name: found for name, found in both.items() if not isinstance(found, Missing)}


def find_similarity(study: Study, corpus: Corpus, *, seed: int = 0) -> SimilarityFindings | Missing:
    """Measure the likeness of the data sets and test whether it goes with the gains.

    Raises:
        InputError: the data is not where it was.
    """
    data = corpus.data
    found: dict[str, Similarity | Missing] = {
        "style": attempt(lambda: _style(corpus, seed)),
        "semantic": attempt(
            lambda: semantic_similarity({name: embed(texts, corpus.encoder) for name, texts in data.items()}, seed=seed)
        ),
    }
    style, semantic = found["style"], found["semantic"]
    if isinstance(style, Missing) and isinstance(semantic, Missing):
        return Missing(f"{style.reason}; {semantic.reason}")
    tests = [
        MantelRow(name, score, _test(study, similarity, score, seed))
        for name, similarity in found.items()
        if isinstance(similarity, Similarity)
        for score in SCORES
    ]
    sources = tuple(a for a in study.adapters if a in study.tasks)
    return SimilarityFindings(sources, corpus.texts, style, semantic, tuple(tests))


def rows_of(similarity: Similarity, sources: tuple[str, ...], tasks: tuple[str, ...]) -> Array:
    """Similarity of each source to each task, (sources, tasks); NaN where they are the same."""
    place = {name: i for i, name in enumerate(similarity.names)}
    return np.array([[np.nan if s == t else similarity.values[place[s], place[t]] for t in tasks] for s in sources])


def _style(corpus: Corpus, seed: int) -> Similarity:
    features = {name: style_features(texts, corpus.parsed_data[name]) for name, texts in corpus.data.items()}
    return style_similarity(features, seed=seed)


def _test(study: Study, similarity: Similarity, score: Score, seed: int) -> Mantel | Missing:
    matrix = study.matrix(score=score)
    own = np.array([[a == t for t in matrix.tasks] for a in matrix.adapters])
    gains = np.where(own, np.nan, matrix.gains)
    likeness = rows_of(similarity, matrix.adapters, matrix.tasks)
    return attempt(lambda: mantel(gains, likeness, seed=seed))
