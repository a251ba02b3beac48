"""Syntax: which dependency relations an adapter succeeds on, and how sources and adapters write.

Success ratios follow arXiv 2509.13624, over the prompts of all tasks but the adapter's own source: what it learned
there is not transfer. Tests compare prompts of one task and of like length only (five bands of each task).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.linguistics import (
    MIN_TEXTS,
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
from .drawing import BLUE, GREY, intervals, panels, short_name
from .section import LeftOut, Missing, Picture, Section, Table, attempt, counted, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    study: Study, corpus: Corpus, *, n_resamples: int = 2000, n_permutations: int = 4999, seed: int = 0
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
        relations = {a: _adapter_relations(study, corpus, a, score, settings) for a in study.adapters}
    sources = [a for a in study.sources if any(p.tokens for p in corpus.parsed_data[a])]
    return SyntaxFindings(
        score=score,
        base_share=share,
        prompts=sum(map(len, corpus.prompts.values())),
        relations=relations,
        profiles={a: profile_syntax(corpus.parsed_data[a], seed=seed) for a in sources},
        writing=attempt(lambda: _measure_writing(study, corpus)),
    )


def _score(study: Study) -> tuple[Score, float]:
    """Strict where the base model is ever strictly right, else lenient."""
    shares: dict[Score, float] = {}
    for score in ("strict", "lenient"):
        right = [example_scores(study.outcomes[None, t], score) for t in study.tasks]
        shares[score] = float(np.concatenate(right).mean())
    chosen: Score = "strict" if shares["strict"] > 0 else "lenient"
    return chosen, shares[chosen]


def _adapter_relations(
    study: Study, corpus: Corpus, adapter: str, score: Score, settings: dict[str, int]
) -> list[RelationRatio]:
    others = [t for t in study.tasks if t != adapter]
    parsed = [syntax for t in others for syntax in corpus.prompts[t]]
    right = [
        np.concatenate([example_scores(study.outcomes[name, t], score) for t in others]) for name in (adapter, None)
    ]
    tasks = [t for t in others for _ in corpus.prompts[t]]
    return relation_success(parsed, *right, tasks=tasks, length_bands=LENGTH_BANDS, **settings)


def _measure_writing(study: Study, corpus: Corpus) -> Mapping[str, Writing] | Missing:
    sources = study.require_sources("what writing they were taught")
    if any(study.outcomes[a, t].texts is None for a in (None, *sources) for t in study.tasks):
        return Missing("what the adapters wrote was not kept: set `keep_outputs: true` in the suite and profile again")
    writings = {}
    for adapter in sources:
        answers = corpus.parse(_answers(study, corpus, adapter))
        wrote, by_base = (corpus.parse(_texts(study, name, adapter, corpus.texts)) for name in (adapter, None))
        if all(any(p.tokens for p in group) for group in (answers[::2], answers[1::2], wrote, by_base)):
            writings[adapter] = Writing(
                adapter=_distance(wrote, answers),
                base=_distance(by_base, answers),
                halves=_distance(answers[::2], answers[1::2]),
            )
    return writings or Missing("no adapter wrote a word outside its own source")


def _answers(study: Study, corpus: Corpus, adapter: str) -> list[str]:
    return [e.target for e in study.training_set(adapter).examples[: corpus.texts]]


def _texts(study: Study, name: str | None, source: str, limit: int) -> list[str]:
    """Up to `limit` outputs of `name`, evenly from all tasks but `source`."""
    others = [t for t in study.tasks if t != source]
    each = max(1, limit // len(others))
    return [text for t in others for text in (study.outcomes[name, t].texts or [])[:each]]


def _distance(a: list[Syntax], b: list[Syntax]) -> float:
    return syntax_distance(*(profile_syntax(p, n_resamples=1) for p in (a, b)))


SHOWN = 12
_COARSE = (0.01, 0.1, 1, 10, 100)
_FINE = (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 10, 30, 100)


def strongest(rows: list[RelationRatio]) -> list[RelationRatio]:
    """The relations that differ most from other texts of their tasks, highest ratio first."""
    far = sorted(rows, key=lambda r: (r.p, -abs(r.beyond)))[:SHOWN]
    return sorted(far, key=lambda r: -r.ratio)


def draw_relations(relations: Mapping[str, list[RelationRatio]]) -> "Figure":
    """A panel an adapter: success over the base model's where a relation occurs, with intervals."""
    shown = {a: strongest(rows) for a, rows in relations.items() if rows}
    most = max(map(len, shown.values()))
    figure, axes = panels(len(shown), columns=(5, 4), height=0.75 + 0.19 * most)
    for each, (adapter, rows) in zip(axes, shown.items(), strict=True):
        at = np.arange(len(rows))[::-1]
        ratio, low, high = (np.array([getattr(r, k) for r in rows]) for k in ("ratio", "low", "high"))
        called = np.array([r.q <= 0.05 for r in rows])
        # On a logarithmic axis, a bar starts at the ratio of 1: no change.
        each.barh(at, ratio - 1, left=1, height=0.6, color=[BLUE if c else "#CFD8DC" for c in called])
        intervals(each, at, ratio, low, high, colour="#333333", marker=".")
        each.axvline(1, color=GREY, linewidth=0.8)
        each.set_xscale("log")
        _ticks(each, float(low.min()), float(high.max()))
        each.set_yticks(at, [r.relation for r in rows])
        for tick, is_called in zip(each.get_yticklabels(), called, strict=True):
            tick.set_fontweight("bold" if is_called else "normal")
        each.set_title(short_name(adapter))
    figure.supxlabel("success of the adapter / success of the base model", fontsize=9)
    return figure


def _ticks(axes, low: float, high: float) -> None:
    low, high = min(low, 0.8), max(high, 1.25)
    inside = [m for m in _FINE if low / 1.1 <= m <= high * 1.1]
    # Where the axis is long, the finer ticks would run into each other.
    ticks = inside if len(inside) <= 4 else [m for m in inside if m in _COARSE]
    axes.set_xlim(low / 1.1, high * 1.1)
    axes.set_xticks(ticks, [f"{m:g}" for m in ticks])
    axes.minorticks_off()


_INTRO = (
    "For every dependency relation, the successes of an adapter on the prompts that hold it over those of the "
    "base model, on all tasks but the adapter's own source. A relation stands for the tasks in which it is "
    "frequent too, task wording included, so a high ratio may name a task alone. The tests therefore ask whether the "
    "adapter gains more on prompts that hold the relation than on others of the same task and of like length."
)
PAPERS = "oprd"
"""The relation that arXiv 2509.13624 reads as the highest."""


def syntax_section(findings: SyntaxFindings) -> Section:
    """Ratios of relations; profiles and distances as tables."""
    pictures, left_out, tables = [], [], [_profiles(findings)]
    relations = findings.relations
    if isinstance(relations, Missing):
        left_out.append(LeftOut("Success ratios of relations", relations.reason))
    elif not any(relations.values()):
        left_out.append(LeftOut("Success ratios of relations", f"no relation occurs in {MIN_TEXTS} prompts or more"))
    else:
        pictures.append(
            Picture("relation_ratios", "Where adapters succeed: dependency relations", draw_relations(relations),
                    relation_caption(findings, relations),
                    f"Bars of success ratios by dependency relation, a panel an adapter. {called_sentence(relations)}")
        )  # fmt: skip
        tables.append(_relations(relations))
    if isinstance(findings.writing, Missing):
        left_out.append(LeftOut("Syntax of what the adapters write", findings.writing.reason))
    else:
        tables.append(_writing(findings))
    return Section("syntax", "Syntax", _INTRO, tuple(pictures), tuple(t for t in tables if t.rows), tuple(left_out))


def called_sentence(relations: Mapping[str, list[RelationRatio]]) -> str:
    """How many relations differ from the prompts at large."""
    tested = sum(len(rows) for rows in relations.values())
    called = sum(r.q <= 0.05 for rows in relations.values() for r in rows)
    return (
        f"{called or 'None'} of {counted(tested, 'relation')} {'goes' if called in (0, 1) else 'go'} with another gain "
        "than other prompts of the same task and of like length, at a false-discovery rate of 5% within an adapter."
    )


def relation_caption(findings: SyntaxFindings, relations: Mapping[str, list[RelationRatio]]) -> str:
    """Which score, how many ratios are called, and how the paper's relation fares."""
    return (
        f"By {findings.score} score, by which the base model answers {percent(findings.base_share, 1)} of "
        f"{counted(findings.prompts, 'prompt')} rightly. {called_sentence(relations)} Blue bars with bold names are "
        f"called; thin lines are 95% intervals. Shown are the {SHOWN} relations with the smallest p of each adapter, "
        f"out of those in {MIN_TEXTS} prompts or more. Ratios are over the prompts of all tasks together; tests stay "
        f"within a task and {LENGTH_BANDS} bands of its prompts' length, so a high ratio that is not called "
        f"may be one of the tasks that hold the relation. {paper_sentence(relations)}"
    )


def paper_sentence(relations: Mapping[str, list[RelationRatio]]) -> str:
    """Whether the paper's highest relation is the highest here."""
    holding = [rows for rows in relations.values() if any(r.relation == PAPERS for r in rows)]
    if not holding:
        return f"The paper's {PAPERS} occurs in too few prompts to be tested."
    first = sum(rows[0].relation == PAPERS for rows in holding)
    called = sum(r.q <= 0.05 and r.beyond > 0 for rows in holding for r in rows if r.relation == PAPERS)
    return (
        f"The paper's {PAPERS} has the highest ratio for {first or 'none'} of {counted(len(holding), 'adapter')}, and "
        f"a gain that is called higher than on other prompts of the same tasks for {called or 'none'}."
    )


def _relations(relations: Mapping[str, list[RelationRatio]]) -> Table:
    columns = ("relation", "texts", "adapter", "base", "ratio", "low", "high", "beyond", "p", "q")
    rows = [
        {"name": name}
        | {("success" if c == "adapter" else "base_success" if c == "base" else c): getattr(r, c) for c in columns}
        for name, ratios in relations.items()
        for r in ratios
    ]
    return Table("relations", "Success by dependency relation", rows)


def _profiles(findings: SyntaxFindings) -> Table:
    rows = [
        {
            "source": source,
            "texts": p.texts,
            "tokens": p.tokens,
            "feature": feature,
            "value": e.value,
            "low": e.low,
            "high": e.high,
        }
        for source, p in findings.profiles.items()
        for feature, e in [
            ("depth", p.depth),
            ("distance to the head", p.distance),
            *((f"depth at quantile {u:g}", e) for u, e in p.depth_quantiles.items()),
            *((f"relation {r}", e) for r, e in p.relations.items()),
            *((f"part of speech {r}", e) for r, e in p.pos.items()),
        ]
    ]
    return Table("syntax_profiles", "Syntax of the sources' training rows (prompt and answer)", rows)


def _writing(findings: SyntaxFindings) -> Table:
    assert not isinstance(findings.writing, Missing)
    rows = [
        {"adapter": name, "adapter_to_source": w.adapter, "base_to_source": w.base, "source_halves": w.halves}
        for name, w in findings.writing.items()
    ]
    return Table(
        "writing",
        "Distance of relations in what is written on other tasks to the source's answers (Jensen-Shannon)",
        rows,
    )
