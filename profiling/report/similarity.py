"""Does similarity of data explain transfer? Style and meaning of the data sets, tested against the gains.

A data set's texts are prompt and target together: training rows of a source, test rows of the other tasks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.agreement import Mantel, mantel
from ..analysis.similarity import Similarity, embed, semantic_similarity, style_features, style_similarity
from ..study import Study
from ..tasks.scoring import Scores
from .corpus import Corpus
from .drawing import Array, heat_figure
from .section import LeftOut, Missing, Picture, Section, Table, attempt, p_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MantelRow:
    """The test of one kind of similarity against the gains by one score."""

    similarity: str
    score: str
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
        return {name: similarity for name, similarity in both.items() if not isinstance(similarity, Missing)}


def find_similarity(study: Study, corpus: Corpus, *, seed: int = 0) -> SimilarityFindings | Missing:
    """Measure how similar the data sets are, and test whether that goes with the gains.

    Raises:
        InputError: the data is not where it was.
    """
    sources = study.require_sources("what data they were trained on")
    data = corpus.data
    kinds: dict[str, Similarity | Missing] = {
        "style": attempt(lambda: _style(corpus, seed)),
        "semantic": attempt(
            lambda: semantic_similarity({name: embed(texts, corpus.encoder) for name, texts in data.items()}, seed=seed)
        ),
    }
    style, semantic = kinds["style"], kinds["semantic"]
    if isinstance(style, Missing) and isinstance(semantic, Missing):
        return Missing(f"{style.reason}; {semantic.reason}")
    tests = [
        MantelRow(name, by, _test(study, similarity, score, seed))
        for name, similarity in kinds.items()
        if isinstance(similarity, Similarity)
        for by, score in study.scores.items()
    ]
    return SimilarityFindings(sources, corpus.texts, style, semantic, tuple(tests))


def rows_of(similarity: Similarity, sources: tuple[str, ...], tasks: tuple[str, ...]) -> Array:
    """Similarity of each source to each task, (sources, tasks); NaN where they are the same."""
    place = {name: i for i, name in enumerate(similarity.names)}
    return np.array([[np.nan if s == t else similarity.values[place[s], place[t]] for t in tasks] for s in sources])


def _style(corpus: Corpus, seed: int) -> Similarity:
    features = {name: style_features(texts, corpus.parsed_data[name]) for name, texts in corpus.data.items()}
    return style_similarity(features, seed=seed)


def _test(study: Study, similarity: Similarity, score: Scores, seed: int) -> Mantel | Missing:
    matrix = study.matrix(score=score, adapters=study.sources)
    own = np.array([[a == t for t in matrix.tasks] for a in matrix.adapters])
    gains = np.where(own, np.nan, matrix.gains)
    similarities = rows_of(similarity, matrix.adapters, matrix.tasks)
    return attempt(lambda: mantel(gains, similarities, seed=seed))


def draw_similarity(similarity: Similarity, sources: tuple[str, ...]) -> "Figure":
    """Similarity of every source to every task; a source to itself is its split half, in a frame."""
    from matplotlib.patches import Rectangle

    place = [similarity.names.index(s) for s in sources]
    values = similarity.values[place]
    # A few values just below zero are no reason to give up half of the colours.
    negative = bool((values < -0.1).any())
    figure, axes = heat_figure(
        values,
        height=1.8 + 0.34 * len(sources),
        rows=sources,
        columns=similarity.names,
        scale="similarity",
        xlabel="task",
        ylabel="source",
        limits=(-1, 1) if negative else (0, 1),
        diverging=negative,
        text=".2f",
        size=8 if len(similarity.names) <= 18 else 6.8,
    )
    for i, j in enumerate(place):
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor="#1B1B1B", linewidth=1.2))
    return figure


_TITLES = {"style": "Similarity of style", "semantic": "Similarity of meaning"}
_SETS = {
    "style": "function words, parts of speech, punctuation and readability, standardised over the tasks",
    "semantic": "mean sentence vectors (MiniLM)",
}
SURE = 0.05


def similarity_section(findings: SimilarityFindings) -> Section:
    """One heat map for style and one for meaning, with their tests against the gains."""
    intro = (
        "Texts are prompt and answer together: training rows of a source, test rows of the other tasks, up to "
        f"{findings.texts} a task. Whether similarity goes with gain is tested by permuting which source is which "
        "(Mantel), a source's own task left out."
    )
    pictures = [
        Picture(
            name=f"similarity_{kind}",
            title=_TITLES[kind],
            figure=draw_similarity(similarity, findings.sources),
            caption=similarity_caption(findings, kind, similarity),
            alt=f"Heat map of {kind} similarity of every source to every task; values are in the table.",
        )
        for kind, similarity in findings.kinds.items()
    ]
    both = (("style", findings.style), ("semantic", findings.semantic))
    left_out = [LeftOut(_TITLES[k], s.reason) for k, s in both if isinstance(s, Missing)]
    tables = [_table(kind, s) for kind, s in findings.kinds.items()]
    return Section(
        "similarity", "Similarity of the data", intro, tuple(pictures), (*tables, _tests(findings)), tuple(left_out)
    )


def similarity_caption(findings: SimilarityFindings, kind: str, similarity: Similarity) -> str:
    """How the similarity goes with the gains, by every score."""
    tests = " ".join(mantel_sentence(row) for row in findings.tests if row.similarity == kind)
    half, whole = float(similarity.split_half.min()), float(similarity.ceiling.min())
    return (
        f"{tests} Cosine of {_SETS[kind]}. Framed cells set two halves of one data set against each other "
        f"(at least {half:.2f}; two whole samples would reach {whole:.2f}): a pair as high as that is as alike as "
        "two samples of one data set."
    )


def mantel_sentence(row: MantelRow) -> str:
    """Whether similarity goes with the gains by one score."""
    if isinstance(row.test, Missing):
        return f"Against {row.score} gains it could not be tested: {row.test.reason}."
    t = row.test
    numbers = f"r = {t.r:+.2f} (95% of permuted: {t.null_low:+.2f} to {t.null_high:+.2f}), {p_value(t.p)}"
    return f"Rank correlation with {row.score} gains {numbers}: {_verdict(t)}."


def _verdict(test: Mantel) -> str:
    if test.p > SURE:
        return "not shown to go with them"
    return "the more alike, the larger the gain" if test.r > test.null_mean else "the more alike, the smaller the gain"


def _table(kind: str, similarity: Similarity) -> Table:
    rows = [
        {
            "first": first,
            "second": second,
            "similarity": float(similarity.values[i, j]),
            "low": float(similarity.low[i, j]),
            "high": float(similarity.high[i, j]),
            "split_half": i == j,
        }
        for i, first in enumerate(similarity.names)
        for j, second in enumerate(similarity.names)
        if j >= i
    ]
    return Table(f"similarity_{kind}", f"{_TITLES[kind]} of all pairs of tasks", rows)


def _tests(findings: SimilarityFindings) -> Table:
    columns = ("r", "p", "null_mean", "null_low", "null_high", "cells", "permutations")
    rows = [
        {"similarity": row.similarity, "score": row.score}
        | {c: None if isinstance(row.test, Missing) else getattr(row.test, c) for c in columns}
        for row in findings.tests
    ]
    return Table("similarity_tests", "Similarity against gains", rows)
