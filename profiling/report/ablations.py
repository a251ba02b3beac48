"""What changes when a source is altered, and how much of a gain a control without its content explains.

An adapter that learned only to stop, or only the format of answers, can imitate transfer. Such a control is trained on
the same source with the link from input to output cut, so what it gains over the base model is gain that the content of
the source does not explain; what the adapter gains beyond it may be transfer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ...adapters import InputError, Outcomes
from ..statistics.significance import (
    BOUNDS,
    GAIN,
    SIDE_EFFECT,
    Array,
    GainTests,
    Interval,
    bootstrap_means,
    compare,
    paired,
    score_bounds,
    sign_flip_p,
)
from ..study import Study
from ..tasks.ablation import Ablation
from ..tasks.scoring import Scores, example_scores, score_on
from .drawing import BLUE, GREY, ORANGE, intervals, new_figure, panels, short_name
from .section import LeftOut, Missing, Picture, Row, Section, Table, between, counted, percent, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explained:
    """What a control leaves of an adapter's gain; every mean is a difference per example.

    `gain` and `control_gain` are over the base model, `beyond_control` is adapter less control; its p is
    McNemar's exact test for right-or-wrong scores. `share` is control_gain / gain with 95% bootstrap
    bounds; NaN where the interval of `gain` holds 0, since a share of nothing means nothing. Below 0
    the control went the other way; above 1 it did better than the adapter.
    """

    gain: Interval
    control_gain: Interval
    beyond_control: Interval
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class ExplainedRows:
    """One `Explained` a task, and one over all of them in which every task weighs the same."""

    tasks: tuple[str, ...]
    rows: tuple[Explained, ...]
    pooled: Explained


def explained_rows(
    outcomes: Mapping[tuple[str | None, str], Outcomes],
    adapter: str,
    control: str,
    tasks: Sequence[str],
    *,
    score: Scores = "strict",
    n_resamples: int = 2000,
    seed: int = 0,
) -> ExplainedRows:
    """Set `adapter` beside `control` on each of `tasks` that all three were measured on, and on all.

    The pooled interval is over examples within tasks: it speaks of these tasks, not of others. Gains and side effects
    cancel in it. Tasks chosen because the adapter gained there, on these same examples, have a gain that is too high
    and a share that is too low.

    Raises:
        InputError: no task was measured with base, adapter and control, or their examples differ.
    """
    members = (None, adapter, control)
    shared = [task for task in tasks if all((m, task) in outcomes for m in members)]
    if not shared:
        raise InputError(f"no task was measured with the base model, {adapter} and {control}; measure all three")
    columns = [_columns(*(example_scores(outcomes[m, t], score_on(t, score)) for m in members)) for t in shared]
    bounded = all(score_on(t, score) != "likelihood" for t in shared)
    rows = tuple(_pooled([c], n_resamples, seed, bounded=bounded) for c in columns)
    return ExplainedRows(tuple(shared), rows, _pooled(columns, n_resamples, seed, bounded=bounded))


def _columns(base: ArrayLike, adapter: ArrayLike, control: ArrayLike) -> Array:
    """Gain, control's gain and what is beyond it, example by example: (n, 3)."""
    b, a, c = (np.asarray(x, dtype=float) for x in (base, adapter, control))
    return np.stack([paired(a, b), paired(c, b), paired(a, c)], axis=1)


def _pooled(tasks: Sequence[Array], n_resamples: int, seed: int, *, bounded: bool) -> Explained:
    """Means over `tasks` of their columns (n, 3), resampled within tasks; `bounded` scores are in [0, 1]."""
    rng = np.random.default_rng(seed)
    drawn = np.mean([bootstrap_means(c, n_resamples, rng) for c in tasks], axis=0)
    # Weighted so that the mean over all examples is the mean over tasks of their means.
    total = sum(map(len, tasks))
    examples = np.concatenate([c * (total / (len(tasks) * len(c))) for c in tasks])
    means = examples.mean(axis=0)
    low, high = _mean_bounds(tasks) if bounded else np.percentile(drawn, BOUNDS, axis=0)
    p = sign_flip_p(examples, n_resamples, rng)
    gain, control_gain, beyond = (Interval(*map(float, row)) for row in np.stack([means, low, high, p], axis=1))
    share = _share(gain, control_gain, drawn)
    return Explained(gain, control_gain, beyond, *share)


def _mean_bounds(tasks: Sequence[Array]) -> tuple[Array, Array]:
    """95% bounds (3,) of the mean over tasks, from each task's own (Zou and Donner 2008, independent estimates)."""
    ends = np.array([score_bounds(columns) for columns in tasks])
    means = np.array([columns.mean(axis=0) for columns in tasks])
    margin = np.sqrt(np.sum((ends - means[:, None]) ** 2, axis=0)) / len(tasks)
    return means.mean(axis=0) - margin[0], means.mean(axis=0) + margin[1]


def _share(gain: Interval, control_gain: Interval, drawn: Array) -> tuple[float, float, float]:
    """Share of the gain and its bounds, from resampled means (B, 3)."""
    if gain.low <= 0 <= gain.high:
        return np.nan, np.nan, np.nan
    kept = drawn[drawn[:, 0] != 0]
    low, high = np.percentile(kept[:, 1] / kept[:, 0], BOUNDS)
    return control_gain.mean / gain.mean, float(low), float(high)


@dataclass(frozen=True)
class Control:
    """A control beside its source's adapter on every task of both; `own` and `elsewhere` sum these up.

    `own` is the source's own task, None where it was not measured; `elsewhere` pools the others, each
    weighing the same: that is where a gain is transfer.
    """

    ablation: Ablation
    all: ExplainedRows
    own: Explained | None
    elsewhere: Explained | None


@dataclass(frozen=True)
class AblationFindings:
    """`effects`: variants against their originals on `tasks`, by the name of a score, first the one that routes;
    `controls` by that one."""

    tasks: tuple[str, ...]
    variants: Mapping[str, Ablation]
    effects: Mapping[str, GainTests] | Missing
    controls: tuple[Control, ...] | Missing


def find_ablations(
    study: Study, *, q: float = 0.05, n_resamples: int = 2000, seed: int = 0
) -> AblationFindings | Missing:
    """Test every ablation against the adapter of the unaltered source."""
    if not study.ablations:
        return Missing("the suite of this profile has no ablations")
    tasks = tuple(t for t in study.tasks if any((a, t) in study.outcomes for a in study.ablations))
    variants = {a.name: a for a in study.ablations.values() if not a.is_control and not a.is_unchanged}
    controls = [a for a in study.ablations.values() if a.is_control]
    settings: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    # A "gain" is a variant better than its original, a "side effect" one worse.
    pairs = {name: (name, a.of) for name, a in variants.items()}
    effects = {
        name: compare(study.outcomes, pairs, tasks, score=score, q=q, **settings)
        for name, score in study.scores.items()
        if name != "likelihood"
    }
    beside = tuple(_control(study, a, tasks, settings) for a in controls)
    return AblationFindings(
        tasks=tasks,
        variants=variants,
        effects=effects if variants else Missing("the suite has controls, but no altered sources"),
        controls=beside or Missing("the suite has altered sources, but no controls"),
    )


def _control(study: Study, ablation: Ablation, tasks: tuple[str, ...], settings: dict[str, Any]) -> Control:
    def compared(on: list[str]) -> ExplainedRows:
        return explained_rows(study.outcomes, ablation.of, ablation.name, on, score=study.routing, **settings)

    rows = compared(list(tasks))
    others = [t for t in rows.tasks if t != ablation.of]
    return Control(
        ablation=ablation,
        all=rows,
        own=dict(zip(rows.tasks, rows.rows, strict=True)).get(ablation.of),
        elsewhere=compared(others).pooled if others else None,
    )


def draw_effects(tests: GainTests, origins: dict[str, str]) -> "Figure":
    """A panel an ablation: the variant less its original on every task, with intervals."""
    figure, axes = panels(
        len(tests.adapters), columns=(3,), height=0.8 + 0.22 * len(tests.tasks), sharey=True, sharex=True
    )
    at = np.arange(len(tests.tasks))[::-1]
    for i, (each, name) in enumerate(zip(axes, tests.adapters, strict=True)):
        each.axvline(0, color=GREY, linewidth=0.8)
        called, measured = tests.called[i], ~np.isnan(tests.gain[i])
        for kind, colour in ((called & measured, BLUE), (~called & measured, GREY)):
            if kind.any():
                values = (100 * array[i][kind] for array in (tests.gain, tests.low, tests.high))
                intervals(each, at[kind], *values, colour=colour, open_marker=colour == GREY)
        each.set_title(f"{short_name(name)}\nless {short_name(origins[name])}")
        each.grid(axis="y", color="#EEEEEE")
        each.set_axisbelow(True)
        each.set_yticks(at, [short_name(t) for t in tests.tasks])
    figure.supxlabel("change of the score, points", fontsize=9)
    return figure


def draw_controls(controls: Sequence[Control]) -> "Figure":
    """Gain of each source's adapter beside that of its control, on its own task and elsewhere."""
    figure = new_figure(1.2 + 0.5 * len(controls))
    axes = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(controls))[::-1].astype(float)
    for each, (title, effects) in zip(axes, _sides(controls), strict=True):
        each.axvline(0, color=GREY, linewidth=0.8)
        known = [i for i, one in enumerate(effects) if one is not None]
        pairs = (
            (0.14, "gain", BLUE, "adapter of the source", "o"),
            (-0.14, "control_gain", ORANGE, "its control", "s"),
        )
        for offset, kind, colour, label, marker in pairs:
            rows = [getattr(effects[i], kind) for i in known]
            values = (100 * np.array([getattr(r, k) for r in rows]) for k in ("mean", "low", "high"))
            intervals(
                each, at[known] + offset, *values, colour=colour, label=label, marker=marker, open_marker=marker == "s"
            )
        for i in known:
            share = effects[i].share
            text = "no share" if np.isnan(share) else f"{100 * share:.0f}%"
            each.text(1.01, at[i], text, transform=each.get_yaxis_transform(), va="center", fontsize=8)
        each.set_title(title)
        each.set_xlabel("gain over the base model, points")
        each.grid(axis="y", color="#EEEEEE")
        each.set_axisbelow(True)
        each.set_ylim(-0.6, len(controls) - 0.4)
    axes[1].tick_params(axis="y", length=0)
    axes[0].set_yticks(at, [f"{short_name(c.ablation.name)}\nof {short_name(c.ablation.of)}" for c in controls])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _sides(controls: Sequence[Control]) -> list:
    own = [c.own for c in controls]
    return [("on the source's own task", own), ("on other tasks", [c.elsewhere for c in controls])]


_INTRO = (
    "An ablation is an adapter trained on an altered source, set against the adapter of the source as it was. "
    "A control is trained on the same source with nothing of its content left to learn: answers moved to other "
    "prompts (shuffled), or the end of the turn alone (stop_only). What a control gains, content did not give."
)


def ablation_section(findings: AblationFindings) -> Section:
    """Effects of altered sources, and what the controls explain."""
    pictures, tables, left_out = [], [], []
    if isinstance(findings.effects, Missing):
        left_out.append(LeftOut("Effects of altered sources", findings.effects.reason))
    else:
        by, first = next(iter(findings.effects.items()))
        origins = {name: a.of for name, a in findings.variants.items()}
        pictures.append(
            Picture("ablation_effects", "Effects of altered sources", draw_effects(first, origins),
                    effect_caption(first, by), f"Points with intervals, a panel an ablation. {effect_sentence(first)}")
        )  # fmt: skip
        tables += [_effects(findings, score, tests) for score, tests in findings.effects.items()]
    if isinstance(findings.controls, Missing):
        left_out.append(LeftOut("What controls explain", findings.controls.reason))
    else:
        pictures.append(
            Picture("controls", "What controls explain", draw_controls(findings.controls),
                    control_caption(findings.controls),
                    "Gains of adapters beside those of their controls, with intervals; values are in the table of "
                    "controls.")
        )  # fmt: skip
        tables.append(_controls(findings.controls))
    return Section("ablations", "Ablations and controls", _INTRO, tuple(pictures), tuple(tables), tuple(left_out))


def effect_sentence(tests: GainTests) -> str:
    """How many cells of the ablations differ from their originals."""
    total, counts = int(np.sum(~np.isnan(tests.gain))), tests.counts
    rate = f"at a false-discovery rate of {percent(tests.q)}"
    if not counts[GAIN] and not counts[SIDE_EFFECT]:
        cells = counted(total, "cell")
        return f"In none of {cells} is an altered source shown to do better or worse than the source as it was {rate}."
    return (
        f"In {counted(total, 'cell')}, an altered source does better than the source as it was in {counts[GAIN]} and "
        f"worse in {counts[SIDE_EFFECT]} {rate}."
    )


def effect_caption(tests: GainTests, score: str) -> str:
    """The calls, the largest of them, and how wide the intervals are."""
    largest = ""
    if tests.called.any():
        i, j = tests.largest
        bounds = between(tests.low[i, j], tests.high[i, j])
        largest = f" The largest: {tests.adapters[i]} on {tests.tasks[j]}, {points(tests.gain[i, j])} ({bounds})."
    half = 100 * float(np.nanmedian(tests.high - tests.low)) / 2
    return (
        f"{effect_sentence(tests)}{largest} {score.capitalize()} score; filled marks are called, bars are 95% "
        f"intervals (median ±{half:.0f} points): an open mark near zero with a wide bar shows little either way."
    )


def control_caption(controls: tuple[Control, ...]) -> str:
    """What each control explains of the gain on its own task and of transfer."""
    sentences = [control_sentence(c) for c in controls]
    return (
        f"{' '.join(sentences)} Percentages at the right: share of the gain that the control reaches too; “no share” "
        "where the interval of the gain holds zero. Elsewhere tasks weigh the same, and gains and side effects cancel."
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
        return f"{gain} are not shown to differ from zero, so there is nothing to explain"
    bounds = between(e.share_low, e.share_high, form=".0f")
    return f"{percent(e.share)} of {gain} ({bounds})"


def _effects(findings: AblationFindings, score: str, tests: GainTests) -> Table:
    rows: list[Row] = [
        {
            "ablation": name,
            "of": findings.variants[name].of,
            "change": findings.variants[name].change,
            "task": task,
            **tests.row(i, j),
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
    return Table("controls", "Gains of sources and of their controls, by the score that routes", rows)


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
            for column, value in ((name, i.mean), (f"{name}_low", i.low), (f"{name}_high", i.high), (f"{name}_p", i.p))
        },
        "share": e.share,
        "share_low": e.share_low,
        "share_high": e.share_high,
    }
