"""The section of similarity: does likeness of data explain the gains?"""

from ...analysis.agreement import Mantel
from ...analysis.similarity import Similarity
from ...findings import MantelRow, Missing, SimilarityFindings
from ..figures.similarity import similarity_map
from ..section import LeftOut, Picture, Section
from ..tables import Table
from ..wording import p_value

_TITLES = {"style": "Likeness of style", "semantic": "Likeness of meaning"}
_SETS = {
    "style": "function words, parts of speech, marks and readability, standardised over the tasks",
    "semantic": "mean sentence vectors (MiniLM)",
}
SURE = 0.05


def similarity_section(found: SimilarityFindings) -> Section:
    """A heat map a kind of likeness, with its tests against the gains."""
    intro = (
        "Texts are prompt and answer together: training rows of a source, test rows of the other tasks, up to "
        f"{found.texts} a task. Whether likeness goes with gain is tested by permuting which source is which (Mantel), "
        "a source's own task left out."
    )
    pictures = [
        Picture(
            name=f"similarity_{kind}",
            title=_TITLES[kind],
            figure=similarity_map(similarity, found.sources),
            caption=similarity_caption(found, kind, similarity),
            alt=f"Heat map of {kind} similarity of every source to every task; values are in the table.",
        )
        for kind, similarity in found.kinds.items()
    ]
    both = (("style", found.style), ("semantic", found.semantic))
    left_out = [LeftOut(_TITLES[k], s.reason) for k, s in both if isinstance(s, Missing)]
    tables = [_table(kind, s) for kind, s in found.kinds.items()]
    return Section(
        "similarity",
        "Likeness of the data",
        intro,
        tuple(pictures),
        (*tables, _tests(found)),
        tuple(left_out),
    )


def similarity_caption(found: SimilarityFindings, kind: str, similarity: Similarity) -> str:
    """How the similarity goes with the gains, by every score."""
    tests = " ".join(mantel_sentence(row) for row in found.tests if row.similarity == kind)
    half, whole = float(similarity.split_half.min()), float(similarity.ceiling.min())
    return (
        f"{tests} Cosine of {_SETS[kind]}. Framed cells set two halves of one data set against each other "
        f"(at least {half:.2f}; two whole samples would reach {whole:.2f}): a pair as high as that is as alike as "
        "two samples of one data set."
    )


def mantel_sentence(row: MantelRow) -> str:
    """Whether likeness goes with the gains by one score."""
    if isinstance(row.test, Missing):
        return f"Against {row.score} gains it could not be tested: {row.test.reason}."
    t = row.test
    numbers = f"r = {t.r:+.2f} (95% of permuted: {t.null_low:+.2f} to {t.null_high:+.2f}), {p_value(t.p)}"
    return f"Rank correlation with {row.score} gains {numbers}: {_verdict(t)}."


def _verdict(test: Mantel) -> str:
    if test.p > SURE:
        return "not shown to go with them"
    return "the more alike, the larger the gain" if test.r > test.null_mean else "the more alike, the smaller the gain"


def _table(kind: str, found: Similarity) -> Table:
    rows = [
        {
            "first": first,
            "second": second,
            "similarity": float(found.values[i, j]),
            "low": float(found.low[i, j]),
            "high": float(found.high[i, j]),
            "split_half": i == j,
        }
        for i, first in enumerate(found.names)
        for j, second in enumerate(found.names)
        if j >= i
    ]
    return Table(f"similarity_{kind}", f"{_TITLES[kind]} of all pairs of tasks", rows)


def _tests(found: SimilarityFindings) -> Table:
    columns = ("r", "p", "null_mean", "null_low", "null_high", "cells", "permutations")
    rows = [
        {"similarity": row.similarity, "score": row.score}
        | {c: None if isinstance(row.test, Missing) else getattr(row.test, c) for c in columns}
        for row in found.tests
    ]
    return Table("similarity_tests", "Similarity against gains", rows)
