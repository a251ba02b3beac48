"""The section of gains: which of them are real."""

import numpy as np

from ...findings import GainFindings
from ...statistics.significance import GAIN, SIDE_EFFECT, GainTests
from ...tasks.scoring import Score
from ..figures.gains import gain_map, share_map
from ..section import Picture, Section
from ..tables import Table
from ..wording import between, counted, percent, points, span

_INTRO = (
    "Every adapter answers the same test examples as the base model, so each gain is a paired difference. "
    "A cell is called a gain or a side effect where its paired test (McNemar's exact test for right or "
    "wrong answers, sign flips otherwise) holds at the false-discovery rate over all cells of one score. "
    "A cell that is not called is not shown to differ; that is no proof that it is the same."
)
_SCORE_NAMES: dict[Score, str] = {
    "strict": "strict score: the answer alone, as asked for",
    "lenient": "lenient score: the right answer anywhere it can be read",
    "likelihood": "likelihood of the gold answer, nats a token",
}


def gain_section(found: GainFindings) -> Section:
    """Heat maps of gains by score, and of answers not parsed or cut."""
    maps = [
        Picture(
            name=f"gains_{score}",
            title=f"Gains over the base model, {name}",
            figure=gain_map(found, score),
            caption=gain_caption(found, score),
            alt=f"Heat map of gains by {score} score. {call_sentence(found.tests[score])}",
        )
        for score, name in _SCORE_NAMES.items()
    ]
    shares = [
        Picture(
            name=kind,
            title=title,
            figure=share_map(found, kind),
            caption=share_caption(found, kind, what),
            alt=f"Heat map of the share of examples with {what}, for the base model and every adapter.",
        )
        for kind, title, what in (
            ("unparsed", "Answers that could not be parsed", "no answer found"),
            ("cut", "Answers cut at the token limit", "the output cut at the token limit"),
        )
    ]
    tables = [_gain_table(found, score) for score in _SCORE_NAMES]
    return Section("gains", "Gains and side effects", _INTRO, (*maps, *shares), (*tables, _cells(found)))


def gain_caption(found: GainFindings, score: Score) -> str:
    """What a heat map of gains shows, and how sure it is."""
    tests = found.tests[score]
    marks = "Dots and bold figures mark what is called; " if _called(tests).any() else ""
    return " ".join(
        part
        for part in (
            call_sentence(tests),
            _own_tasks(tests),
            _largest(tests, score),
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
    effects = counted(counts[SIDE_EFFECT], "side effect")
    return f"{counts[GAIN] or 'None'} of {counted(total, 'cell')} {verb} and {effects} {_is(counts[SIDE_EFFECT])} shown {rate}."


def share_caption(found: GainFindings, kind: str, what: str) -> str:
    """A share of examples for base and adapters, and the widest of its intervals."""
    shares = found.shares[kind]
    base, others = shares.share[0].mean(), shares.share[1:].mean()
    widest = float(np.max(shares.high - shares.low)) / 2
    return (
        f"{percent(base)} of the base model's answers and {percent(others)} of the adapters' have {what}, "
        f"tasks weighing the same. Wilson intervals of single cells are ±{100 * widest:.0f} points or less; "
        "they are in the table of cells."
    )


def _called(tests: GainTests) -> np.ndarray:
    return np.isin(tests.verdict, (GAIN, SIDE_EFFECT))


def _own_tasks(tests: GainTests) -> str:
    own = sum(tests.verdict[i, tests.tasks.index(a)] == GAIN for i, a in enumerate(tests.adapters) if a in tests.tasks)
    if not tests.counts[GAIN]:
        return ""
    return f"Of the gains, {own or 'none'} {_is(own)} on an adapter's own source task; the others are transfer."


def _largest(tests: GainTests, score: Score) -> str:
    if not _called(tests).any():
        return ""
    sizes = np.where(_called(tests), np.abs(tests.gain), -1)
    i, j = np.unravel_index(int(sizes.argmax()), sizes.shape)
    gain, low, high = tests.gain[i, j], tests.low[i, j], tests.high[i, j]
    size = (
        f"{gain:+.2f} nats a token ({between(low, high, factor=1, form='+.2f')})"
        if score == "likelihood"
        else f"{points(gain)} ({between(low, high)})"
    )
    return f"The largest called: {tests.adapters[i]} on {tests.tasks[j]}, {size}."


def _width(tests: GainTests, score: Score) -> str:
    half = float(np.nanmedian(tests.high - tests.low)) / 2
    size = f"{half:.2f} nats" if score == "likelihood" else f"{100 * half:.0f} points"
    return f"With {span(tests.examples.tolist())} examples a task, the median 95% interval of a cell is ±{size}."


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _gain_table(found: GainFindings, score: Score) -> Table:
    tests = found.tests[score]
    rows = [
        {
            "adapter": adapter,
            "task": task,
            "examples": int(tests.examples[j]),
            **{k: float(getattr(tests, k)[i, j]) for k in ("gain", "low", "high", "p", "q_value")},
            "verdict": str(tests.verdict[i, j]),
        }
        for i, adapter in enumerate(tests.adapters)
        for j, task in enumerate(tests.tasks)
    ]
    return Table(f"gains_{score}", f"Gains by {score} score", rows)


def _cells(found: GainFindings) -> Table:
    rows = [
        {"adapter": name or "base model", "task": task, "examples": int(found.examples[j])}
        | {
            column: float(values[i, j])
            for kind, s in found.shares.items()
            for column, values in (
                (kind, s.share),
                (f"{kind}_low", s.low),
                (f"{kind}_high", s.high),
            )
        }
        for i, name in enumerate((None, *found.adapters))
        for j, task in enumerate(found.tasks)
    ]
    return Table("cells", "Shares of examples in every cell, with Wilson bounds", rows)
