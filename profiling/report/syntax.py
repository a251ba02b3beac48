"""The section of syntax: relations that adapters succeed on, and how data and outputs are written."""

from collections.abc import Mapping

from ...analysis.linguistics import MIN_TEXTS, RelationRatio
from ...findings import Missing, SyntaxFindings
from ...findings.syntax import LENGTH_BANDS
from ..figures.syntax import SHOWN, relation_ratios
from ..section import LeftOut, Picture, Section
from ..tables import Table
from ..wording import counted, percent

_INTRO = (
    "For every dependency relation, the successes of an adapter on the prompts that hold it over those of the "
    "base model, on all tasks but the adapter's own source. Relations stand for the tasks in which they are "
    "frequent too, task wording included, so a high ratio names a kind of prompt, not a cause."
)
PAPERS = "oprd"
"""The relation that arXiv 2509.13624 reads as the highest."""


def syntax_section(found: SyntaxFindings) -> Section:
    """Ratios of relations; profiles and distances as tables."""
    pictures, left_out, tables = [], [], [_profiles(found)]
    relations = found.relations
    if isinstance(relations, Missing):
        left_out.append(LeftOut("Success ratios of relations", relations.reason))
    elif not any(relations.values()):
        left_out.append(LeftOut("Success ratios of relations", f"no relation occurs in {MIN_TEXTS} prompts or more"))
    else:
        pictures.append(
            Picture("relation_ratios", "Where adapters succeed: dependency relations", relation_ratios(relations),
                    relation_caption(found, relations),
                    f"Bars of success ratios by dependency relation, a panel an adapter. {called_sentence(relations)}")
        )  # fmt: skip
        tables.append(_relations(relations))
    if isinstance(found.writing, Missing):
        left_out.append(LeftOut("Syntax of what the adapters write", found.writing.reason))
    else:
        tables.append(_writing(found))
    return Section(
        "syntax",
        "Syntax",
        _INTRO,
        tuple(pictures),
        tuple(t for t in tables if t.rows),
        tuple(left_out),
    )


def called_sentence(relations: Mapping[str, list[RelationRatio]]) -> str:
    """How many relations differ from the prompts at large."""
    tested = sum(len(rows) for rows in relations.values())
    called = sum(r.q <= 0.05 for rows in relations.values() for r in rows)
    return (
        f"{called or 'None'} of {counted(tested, 'ratio')} {'differs' if called in (0, 1) else 'differ'} from those of other prompts of like "
        "length at a false-discovery rate of 5% within an adapter."
    )


def relation_caption(found: SyntaxFindings, relations: Mapping[str, list[RelationRatio]]) -> str:
    """Which score, how many ratios are called, and how the paper's relation fares."""
    return (
        f"By {found.score} score, by which the base model answers {percent(found.base_share, 1)} of "
        f"{counted(found.prompts, 'prompt')} rightly. {called_sentence(relations)} Blue bars with bold names are called; thin lines are 95% "
        f"intervals. Shown are the {SHOWN} relations with the smallest p of each adapter, out of those in {MIN_TEXTS} prompts or more; "
        f"tests stay within {LENGTH_BANDS} bands of prompt length, but not within tasks, so a called relation may only mark the tasks that the adapter gains on. {paper_sentence(relations)}"
    )


def paper_sentence(relations: Mapping[str, list[RelationRatio]]) -> str:
    """Whether the paper's highest relation is the highest here."""
    holding = [rows for rows in relations.values() if any(r.relation == PAPERS for r in rows)]
    if not holding:
        return f"The paper's {PAPERS} occurs in too few prompts to be tested."
    first = sum(rows[0].relation == PAPERS for rows in holding)
    called = sum(r.q <= 0.05 and r.relative > 1 for rows in holding for r in rows if r.relation == PAPERS)
    return (
        f"The paper's {PAPERS} has the highest ratio for {first or 'none'} of {counted(len(holding), 'adapter')}, and a ratio that is "
        f"called higher than elsewhere for {called or 'none'}."
    )


def _relations(relations: Mapping[str, list[RelationRatio]]) -> Table:
    columns = ("relation", "texts", "adapter", "base", "ratio", "low", "high", "relative", "p", "q")
    rows = [
        {"name": name}
        | {("success" if c == "adapter" else "base_success" if c == "base" else c): getattr(r, c) for c in columns}
        for name, found in relations.items()
        for r in found
    ]
    return Table("relations", "Success by dependency relation", rows)


def _profiles(found: SyntaxFindings) -> Table:
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
        for source, p in found.profiles.items()
        for feature, e in [
            ("depth", p.depth),
            ("distance to the head", p.distance),
            *((f"depth at quantile {u:g}", e) for u, e in p.depth_quantiles.items()),
            *((f"relation {r}", e) for r, e in p.relations.items()),
            *((f"part of speech {r}", e) for r, e in p.pos.items()),
        ]
    ]
    return Table("syntax_profiles", "Syntax of the sources' training rows (prompt and answer)", rows)


def _writing(found: SyntaxFindings) -> Table:
    assert not isinstance(found.writing, Missing)
    rows = [
        {
            "adapter": name,
            "adapter_to_source": w.adapter,
            "base_to_source": w.base,
            "source_halves": w.halves,
        }
        for name, w in found.writing.items()
    ]
    return Table(
        "writing",
        "Distance of relations in what is written on other tasks to the source's answers (Jensen-Shannon)",
        rows,
    )
