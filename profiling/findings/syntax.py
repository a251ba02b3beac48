"""Syntax: which dependency relations an adapter succeeds on, and how sources and adapters write.

Success ratios follow arXiv 2509.13624, over the prompts of all tasks but the adapter's own source: what it
learned there is not transfer. Tests compare prompts of like length only (five bands).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..analysis.linguistics import (
    RelationRatio,
    Syntax,
    SyntaxProfile,
    profile_syntax,
    relation_success,
    syntax_distance,
)
from ..study import Study
from ..tasks.scoring import Score, example_scores
from .corpus import Corpus
from .missing import Missing, attempt

LENGTH_BANDS = 5


@dataclass(frozen=True)
class Writing:
    """How near a model writes to the answers of a source, by Jensen-Shannon distance of relations.

    `adapter` and `base` are distances of what each wrote, on tasks other than the source, to the source's
    answers; `halves` is that between two halves of these answers: the least that can be expected.
    """

    adapter: float
    base: float
    halves: float


@dataclass(frozen=True)
class SyntaxFindings:
    """Relation ratios by adapter, all by `score`; profiles of the sources' training rows (prompt and answer)."""

    score: Score
    base_share: float
    """Share of all prompts that the base model answers rightly by `score`."""
    prompts: int
    relations: Mapping[str, list[RelationRatio]] | Missing
    profiles: Mapping[str, SyntaxProfile]
    writing: Mapping[str, Writing] | Missing


def find_syntax(
    study: Study,
    corpus: Corpus,
    *,
    n_resamples: int = 2000,
    n_permutations: int = 4999,
    seed: int = 0,
) -> SyntaxFindings:
    """Compare adapters by relation, and data sets and writings by syntax.

    Raises:
        ImportError, InputError: there is no parser, or the data is not where it was.
    """
    score, share = _score(study)
    settings = {"n_resamples": n_resamples, "n_permutations": n_permutations, "seed": seed}
    relations: Mapping[str, list[RelationRatio]] | Missing = Missing(
        "the base model answers no prompt rightly, strictly or leniently, so there is no success to form a ratio to"
    )
    if share > 0:
        relations = {a: _relations(study, corpus, a, score, settings) for a in study.adapters}
    sources = [a for a in study.adapters if any(p.tokens for p in corpus.parsed_data[a])]
    return SyntaxFindings(
        score=score,
        base_share=share,
        prompts=sum(map(len, corpus.prompts.values())),
        relations=relations,
        profiles={a: profile_syntax(corpus.parsed_data[a], seed=seed) for a in sources},
        writing=attempt(lambda: _writing(study, corpus)),
    )


def _score(study: Study) -> tuple[Score, float]:
    """Strict where the base model is ever strictly right, else lenient."""
    shares: dict[Score, float] = {}
    for score in ("strict", "lenient"):
        right = [example_scores(study.outcomes[None, t], score) for t in study.tasks]
        shares[score] = float(np.concatenate(right).mean())
    chosen: Score = "strict" if shares["strict"] > 0 else "lenient"
    return chosen, shares[chosen]


def _relations(
    study: Study, corpus: Corpus, adapter: str, score: Score, settings: dict[str, int]
) -> list[RelationRatio]:
    others = [t for t in study.tasks if t != adapter]
    parsed = [syntax for t in others for syntax in corpus.prompts[t]]
    right = [
        np.concatenate([example_scores(study.outcomes[name, t], score) for t in others]) for name in (adapter, None)
    ]
    return relation_success(parsed, *right, length_bands=LENGTH_BANDS, **settings)


def _writing(study: Study, corpus: Corpus) -> Mapping[str, Writing] | Missing:
    if any(study.outcomes[a, t].texts is None for a in (None, *study.adapters) for t in study.tasks):
        return Missing("what the adapters wrote was not kept: set `keep_outputs: true` in the suite and profile again")
    found = {}
    for adapter in study.adapters:
        answers = corpus.parse(_answers(study, corpus, adapter))
        wrote, by_base = (corpus.parse(_texts(study, name, adapter, corpus.texts)) for name in (adapter, None))
        if all(any(p.tokens for p in group) for group in (answers[::2], answers[1::2], wrote, by_base)):
            found[adapter] = Writing(
                adapter=_distance(wrote, answers),
                base=_distance(by_base, answers),
                halves=_distance(answers[::2], answers[1::2]),
            )
    return found or Missing("no adapter wrote a word outside its own source")


def _answers(study: Study, corpus: Corpus, adapter: str) -> list[str]:
    return [e.target for e in study.training_set(adapter).examples[: corpus.texts]]


def _texts(study: Study, name: str | None, source: str, limit: int) -> list[str]:
    """Up to `limit` outputs of `name`, evenly from all tasks but `source`."""
    others = [t for t in study.tasks if t != source]
    each = max(1, limit // len(others))
    return [text for t in others for text in (study.outcomes[name, t].texts or [])[:each]]


def _distance(a: list[Syntax], b: list[Syntax]) -> float:
    return syntax_distance(*(profile_syntax(p, n_resamples=1) for p in (a, b)))
