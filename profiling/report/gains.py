"""Gains over the base model by every score: which of them are real."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import hypot
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from ...adapters import Outcomes
from ..statistics.significance import GAIN, SIDE_EFFECT, GainTests, compare_with_base, discoveries, wilson
from ..study import Study
from ..tasks.scoring import example_scores, score_on
from .drawing import Array, heat_figure, signed_limit
from .section import Picture, Section, Table, between, counted, is_or_are, percent, points, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHARES: Mapping[str, Callable[[Outcomes], NDArray]] = {
    "strict": lambda o: o.strict,
    "lenient": lambda o: o.lenient,
    "unparsed": lambda o: o.parse_failure,
    "cut": lambda o: o.finish_reason == 1,
}


@dataclass(frozen=True)
class Shares:
    """Shares of examples in [0, 1] with 95% Wilson bounds, (1 + adapters, tasks): row 0 is the base model."""

    share: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Asymmetry:
    """The gain of `first` on the task of `second` (`there`) and of `second` on the task of `first` (`back`).

    Their `difference` has 95% bounds, p by permutation of the examples' gains and q over all pairs of sources.
    """

    first: str
    second: str
    there: float
    back: float
    difference: float
    low: float
    high: float
    p: float
    q: float


@dataclass(frozen=True)
class GainFindings:
    """`tests` of gains by the name of a score; `shares` of "strict", "lenient", "unparsed" answers and of those "cut"
    at the token limit; `examples` (tasks,) are counts. `sources` are the adapters that were trained on the task of
    their name, and `asymmetries` of every two of them, by the first of the scores.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    examples: NDArray[np.int64]
    tests: Mapping[str, GainTests]
    shares: Mapping[str, Shares]
    sources: tuple[str, ...] = ()
    asymmetries: tuple[Asymmetry, ...] = ()


def find_gains(study: Study, *, q: float = 0.05, n_resamples: int = 2000, seed: int = 0) -> GainFindings:
    """Test every gain by the score that routes, strict, lenient and likelihood, each score a family of its own."""
    tasks = tuple(study.tasks)
    tests = {
        name: compare_with_base(
            study.outcomes, study.adapters, tasks, score=score, q=q, n_resamples=n_resamples, seed=seed
        )
        for name, score in study.scores.items()
    }
    return GainFindings(
        adapters=study.adapters,
        tasks=tasks,
        examples=tests["strict"].examples,
        tests=tests,
        shares={name: _shares(study, of) for name, of in _SHARES.items()},
        sources=study.sources,
        asymmetries=_asymmetries(study, next(iter(tests.items())), n_resamples, seed),
    )


def _asymmetries(study: Study, tested: tuple[str, GainTests], n_resamples: int, seed: int) -> tuple[Asymmetry, ...]:
    name, tests = tested
    pairs = list(combinations(study.sources, 2))
    # So that one strong difference alone can pass the correction.
    n_resamples = max(n_resamples, 80 * len(pairs))

    def gains(adapter: str, task: str) -> Array:
        score = score_on(task, study.scores[name])
        return example_scores(study.outcomes[adapter, task], score) - example_scores(study.outcomes[None, task], score)

    def cell(adapter: str, task: str) -> tuple[float, float, float]:
        place = tests.adapters.index(adapter), tests.tasks.index(task)
        return float(tests.gain[place]), float(tests.low[place]), float(tests.high[place])

    p_values = [
        permutation_test(
            (gains(a, b), gains(b, a)),
            lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
            n_resamples=n_resamples,
            rng=np.random.default_rng(seed),
        ).pvalue
        for a, b in pairs
    ]
    q_values, _ = discoveries(p_values)
    found = []
    for (a, b), p, q in zip(pairs, p_values, q_values, strict=True):
        (there, low, high), (back, least, most) = cell(a, b), cell(b, a)
        far = there - back
        # Newcombe's interval: the two directions are of different examples.
        bounds = far - hypot(there - low, most - back), far + hypot(high - there, back - least)
        found.append(Asymmetry(a, b, there, back, far, *bounds, float(p), float(q)))
    return tuple(found)


def _shares(study: Study, of: Callable[[Outcomes], NDArray]) -> Shares:
    rows = [[study.outcomes[name, task] for task in study.tasks] for name in (None, *study.adapters)]
    hits = np.array([[int(np.sum(of(cell))) for cell in row] for row in rows])
    n = np.array([[len(cell) for cell in row] for row in rows])
    low, high = wilson(hits, n)
    return Shares(hits / n, low, high)


def draw_gains(findings: GainFindings, score: str) -> "Figure":
    """Gains of every adapter on every task; dots mark those that are called."""
    tests = findings.tests[score]
    percent = score != "likelihood"
    values = 100 * tests.gain if percent else tests.gain
    # One extreme cell must not wash out the rest of a scale without bounds.
    known = np.abs(values[np.isfinite(values)])
    limit = signed_limit(values) if percent else max(0.05, float(np.percentile(known, 97)))
    return heat_figure(
        values,
        height=1.8 + 0.34 * len(findings.adapters),
        rows=findings.adapters,
        columns=findings.tasks,
        scale="gain, points" if percent else "gain, nats a token",
        ylabel="adapter",
        limits=(-limit, limit),
        diverging=True,
        text="+.0f" if percent else "+.1f",
        marked=tests.called,
        size=8 if len(findings.tasks) <= 18 else 6.8,
    )[0]


def draw_shares(findings: GainFindings, kind: str) -> "Figure":
    """A share of examples for the base model and every adapter, in percent."""
    figure, axes = heat_figure(
        100 * findings.shares[kind].share,
        height=1.8 + 0.3 * (len(findings.adapters) + 1),
        rows=["base model", *findings.adapters],
        columns=findings.tasks,
        scale="% of examples",
        limits=(0, 100),
        text=".0f",
        size=8 if len(findings.tasks) <= 18 else 6.8,
    )
    axes.axhline(0.5, color="#1B1B1B", linewidth=0.8)
    return figure


_INTRO = (
    "Every adapter answers the same test examples as the base model, so each gain is a paired difference. "
    "A cell is called a gain or a side effect where its paired test (McNemar's exact test for right or "
    "wrong answers, sign flips otherwise) holds at the false-discovery rate over all cells of one score. "
    "A cell that is not called is not shown to differ; that is no proof that it is the same."
)
_SCORE_NAMES = {
    "routing": "the score that routes: for each task its metric's, or what the task asks for",
    "strict": "strict score: the answer alone, as asked for",
    "lenient": "lenient score: the right answer anywhere it can be read",
    "likelihood": "likelihood of the gold answer, nats a token",
}


def gain_section(findings: GainFindings) -> Section:
    """Heat maps of gains by score, and of answers not parsed or cut."""
    maps = [
        Picture(
            name=f"gains_{score}",
            title=f"Gains over the base model, {_SCORE_NAMES[score]}",
            figure=draw_gains(findings, score),
            caption=gain_caption(findings, score),
            alt=f"Heat map of gains by {score} score. {call_sentence(findings.tests[score])}",
        )
        for score in findings.tests
    ]
    shares = [
        Picture(
            name=kind,
            title=title,
            figure=draw_shares(findings, kind),
            caption=share_caption(findings, kind, what),
            alt=f"Heat map of the share of examples with {what}, for the base model and every adapter.",
        )
        for kind, title, what in (
            ("unparsed", "Answers that could not be parsed", "no answer found"),
            ("cut", "Answers cut at the token limit", "the output cut at the token limit"),
        )
    ]
    tables = [_gain_table(findings, score) for score in findings.tests]
    tables += [_asymmetry_table(findings)] if findings.asymmetries else []
    return Section("gains", "Gains and side effects", _INTRO, (*maps, *shares), (*tables, _cells(findings)))


def gain_caption(findings: GainFindings, score: str) -> str:
    """What a heat map of gains shows, and how sure it is."""
    tests = findings.tests[score]
    marks = "Dots and bold figures mark what is called; " if tests.called.any() else ""
    return " ".join(
        part
        for part in (
            call_sentence(tests),
            _own_tasks(tests, findings.sources),
            _largest(tests, score),
            asymmetry_sentence(findings.asymmetries) if score == next(iter(findings.tests)) else "",
            f"{marks or 'No cell is marked; '}blue is better than the base model, orange worse.",
            _width(tests, score),
        )
        if part
    )


def call_sentence(tests: GainTests) -> str:
    """How many cells are gains and side effects at which false-discovery rate."""
    total, counts = int(np.sum(~np.isnan(tests.gain))), tests.counts
    rate = f"at a false-discovery rate of {percent(tests.q)}"
    if not counts[GAIN] and not counts[SIDE_EFFECT]:
        return f"None of {counted(total, 'cell')} is shown to differ from the base model {rate}."
    verb = "is a gain" if counts[GAIN] == 1 else "are gains"
    effects = f"{counted(counts[SIDE_EFFECT], 'side effect')} {is_or_are(counts[SIDE_EFFECT])}"
    return f"{counts[GAIN] or 'None'} of {counted(total, 'cell')} {verb} and {effects} shown {rate}."


def share_caption(findings: GainFindings, kind: str, what: str) -> str:
    """A share of examples for base and adapters, and the widest of its intervals."""
    shares = findings.shares[kind]
    base, others = shares.share[0].mean(), shares.share[1:].mean()
    widest = float(np.max(shares.high - shares.low)) / 2
    return (
        f"{percent(base)} of the base model's answers and {percent(others)} of the adapters' have {what}, "
        f"tasks weighing the same. Wilson intervals of single cells are ±{100 * widest:.0f} points or less; "
        "they are in the table of cells."
    )


def _own_tasks(tests: GainTests, sources: Sequence[str]) -> str:
    own = sum(tests.verdict[i, tests.tasks.index(a)] == GAIN for i, a in enumerate(tests.adapters) if a in sources)
    if not tests.counts[GAIN] or not sources:
        return ""
    return f"Of the gains, {own or 'none'} {is_or_are(own)} on an adapter's own source task; the others are transfer."


def _largest(tests: GainTests, score: str) -> str:
    if not tests.called.any():
        return ""
    i, j = tests.largest
    gain, low, high = tests.gain[i, j], tests.low[i, j], tests.high[i, j]
    size = (
        f"{gain:+.2f} nats a token ({between(low, high, factor=1, form='+.2f')})"
        if score == "likelihood"
        else f"{points(gain)} ({between(low, high)})"
    )
    return f"The largest called: {tests.adapters[i]} on {tests.tasks[j]}, {size}."


def asymmetry_sentence(pairs: Sequence[Asymmetry]) -> str:
    """In how many pairs of sources transfer differs by its direction, and where most."""
    if not pairs:
        return ""
    called = [pair for pair in pairs if pair.q <= 0.05]
    sentence = (
        f"In {len(called) or 'none'} of {counted(len(pairs), 'pair')} of sources the gain of one on the other's task "
        "is shown to differ from that the other way round, at a false-discovery rate of 5%"
    )
    if not called:
        return f"{sentence}."
    most = max(called, key=lambda pair: abs(pair.difference))
    return (
        f"{sentence}; most between {most.first} and {most.second}: {points(most.there)} there, {points(most.back)} "
        f"back. Part of it is head room, which tasks differ in."
    )


def _width(tests: GainTests, score: str) -> str:
    half = float(np.nanmedian(tests.high - tests.low)) / 2
    size = f"{half:.2f} nats" if score == "likelihood" else f"{100 * half:.0f} points"
    return f"With {span(tests.examples.tolist())} examples a task, the median 95% interval of a cell is ±{size}."


def _gain_table(findings: GainFindings, score: str) -> Table:
    tests = findings.tests[score]
    rows = [
        {"adapter": adapter, "task": task, **tests.row(i, j)}
        for i, adapter in enumerate(tests.adapters)
        for j, task in enumerate(tests.tasks)
    ]
    return Table(f"gains_{score}", f"Gains by {score} score", rows)


def _asymmetry_table(findings: GainFindings) -> Table:
    score = next(iter(findings.tests))
    return Table("asymmetry", f"Transfer between two sources in both directions, {score} score",
                 [asdict(pair) for pair in findings.asymmetries])  # fmt: skip


def _cells(findings: GainFindings) -> Table:
    rows = [
        {"adapter": name or "base model", "task": task, "examples": int(findings.examples[j])}
        | {
            column: float(values[i, j])
            for kind, s in findings.shares.items()
            for column, values in ((kind, s.share), (f"{kind}_low", s.low), (f"{kind}_high", s.high))
        }
        for i, name in enumerate((None, *findings.adapters))
        for j, task in enumerate(findings.tasks)
    ]
    return Table("cells", "Shares of examples in every cell, with Wilson bounds", rows)
