"""The section of ablations and controls."""

import numpy as np

from ...analysis.controls import Explained
from ...findings import AblationFindings, Missing
from ...findings.ablations import Control
from ...statistics.significance import GAIN, SIDE_EFFECT, GainTests
from ..figures.ablations import ablation_effects, explained_shares
from ..section import LeftOut, Picture, Section
from ..tables import Row, Table
from ..wording import between, counted, percent, points

_INTRO = (
    "An ablation is an adapter trained on an altered source, set against the adapter of the source as it was. "
    "A control is trained on the same source with nothing of its content left to learn: answers moved to other "
    "prompts (shuffled), or the end of the turn alone (stop_only). What a control gains, content did not give."
)


def ablation_section(found: AblationFindings) -> Section:
    """Effects of altered sources, and what the controls explain."""
    pictures, tables, left_out = [], [], []
    if isinstance(found.effects, Missing):
        left_out.append(LeftOut("Effects of altered sources", found.effects.reason))
    else:
        strict = found.effects["strict"]
        origins = {name: a.of for name, a in found.variants.items()}
        pictures.append(
            Picture("ablation_effects", "Effects of altered sources", ablation_effects(strict, origins),
                    effect_caption(strict), f"Points with intervals, a panel an ablation. {effect_sentence(strict)}")
        )  # fmt: skip
        tables += [_effects(found, score, tests) for score, tests in found.effects.items()]
    if isinstance(found.controls, Missing):
        left_out.append(LeftOut("What controls explain", found.controls.reason))
    else:
        pictures.append(
            Picture("controls", "What controls explain", explained_shares(found.controls), control_caption(found.controls),
                    "Gains of adapters beside those of their controls, with intervals; values are in the table of controls.")
        )  # fmt: skip
        tables.append(_controls(found.controls))
    return Section(
        "ablations",
        "Ablations and controls",
        _INTRO,
        tuple(pictures),
        tuple(tables),
        tuple(left_out),
    )


def effect_sentence(tests: GainTests) -> str:
    """How many cells of the ablations differ from their originals."""
    total, counts = int(np.sum(~np.isnan(tests.gain))), tests.counts
    rate = f"at a false-discovery rate of {percent(tests.q)}"
    if not counts[GAIN] and not counts[SIDE_EFFECT]:
        return f"In none of {counted(total, 'cell')} is an altered source shown to do better or worse than the source as it was {rate}."
    return (
        f"In {counted(total, 'cell')}, an altered source does better than the source as it was in {counts[GAIN]} and worse in "
        f"{counts[SIDE_EFFECT]} {rate}."
    )


def effect_caption(tests: GainTests) -> str:
    """The calls, the largest of them, and how wide the intervals are."""
    called = np.isin(tests.verdict, (GAIN, SIDE_EFFECT))
    largest = ""
    if called.any():
        sizes = np.where(called, np.abs(tests.gain), -1)
        i, j = np.unravel_index(int(sizes.argmax()), sizes.shape)
        bounds = between(tests.low[i, j], tests.high[i, j])
        largest = f" The largest: {tests.adapters[i]} on {tests.tasks[j]}, {points(tests.gain[i, j])} ({bounds})."
    half = 100 * float(np.nanmedian(tests.high - tests.low)) / 2
    return (
        f"{effect_sentence(tests)}{largest} Strict score; filled marks are called, bars are 95% intervals (median ±{half:.0f} points): "
        "an open mark near zero with a wide bar shows little either way."
    )


def control_caption(controls: tuple[Control, ...]) -> str:
    """What each control explains of the gain on its own task and of transfer."""
    sentences = [control_sentence(c) for c in controls]
    return (
        f"{' '.join(sentences)} Percentages at the right: share of the gain that the control reaches too; “no share” where the "
        "interval of the gain holds zero. Elsewhere tasks weigh the same, and gains and side effects cancel."
    )


def control_sentence(control: Control) -> str:
    """What one control explains."""
    name = f"{control.ablation.name} ({control.ablation.change} {control.ablation.of})"
    parts = [
        f"{where}: {_explains(e)}" for where, e in (("own task", control.own), ("elsewhere", control.elsewhere)) if e
    ]
    return f"{name}, {'; '.join(parts)}."


def _explains(e: Explained) -> str:
    gain = f"the adapter's {points(e.gain.mean)}"
    if np.isnan(e.share):
        return f"{gain} are not told from zero, so there is nothing to explain"
    bounds = between(e.share_low, e.share_high, form=".0f")
    return f"{percent(e.share)} of {gain} ({bounds})"


def _effects(found: AblationFindings, score: str, tests: GainTests) -> Table:
    rows: list[Row] = [
        {
            "ablation": name,
            "of": found.variants[name].of,
            "change": found.variants[name].change,
            "task": task,
            "examples": int(tests.examples[j]),
            **{k: float(getattr(tests, k)[i, j]) for k in ("gain", "low", "high", "p", "q_value")},
            "verdict": str(tests.verdict[i, j]),
        }
        for i, name in enumerate(tests.adapters)
        for j, task in enumerate(tests.tasks)
    ]
    return Table(f"ablations_{score}", f"Altered sources against their originals, {score} score", rows)


def _controls(controls: tuple[Control, ...]) -> Table:
    rows: list[Row] = []
    for c in controls:
        cells = [*zip(c.all.tasks, c.all.rows, strict=True)]
        if c.elsewhere:
            cells.append(("all but the source's own", c.elsewhere))
        rows += [_control_row(c, task, e) for task, e in cells]
    return Table("controls", "Gains of sources and of their controls, strict score", rows)


def _control_row(control: Control, task: str, e: Explained) -> Row:
    intervals = {"gain": e.gain, "control_gain": e.control_gain, "beyond_control": e.beyond_control}
    return {
        "control": control.ablation.name,
        "of": control.ablation.of,
        "change": control.ablation.change,
        "task": task,
        **{
            column: value
            for name, i in intervals.items()
            for column, value in (
                (name, i.mean),
                (f"{name}_low", i.low),
                (f"{name}_high", i.high),
                (f"{name}_p", i.p),
            )
        },
        "share": e.share,
        "share_low": e.share_low,
        "share_high": e.share_high,
    }
