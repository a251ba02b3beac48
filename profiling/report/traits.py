"""The trait space of the gains: shares against the null, stable loadings, names, and where adapters lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...adapters import Stability, TraitName
from ..study import Study
from ..tasks.task import Task
from ..traits.names import name_traits, task_group
from ..traits.space import TraitSpace
from ..traits.stability import adapter_stability, loading_stability
from .drawing import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    Array,
    heat_figure,
    intervals,
    new_figure,
    place_labels,
    short_name,
    signed_limit,
)
from .section import Picture, Section, Table, counted, is_or_are, p_value, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TraitFindings:
    """Components of the gains; `labels` are those a user gave, by component from 1.

    `projections` (adapters, r) are trait scores. `ablations` name further rows (ablations, r) of
    `ablation_projections`, predicted from the source tasks alone, which is all they are measured on.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    space: TraitSpace
    by_examples: Stability
    by_adapters: Stability
    names: tuple[TraitName, ...]
    labels: Mapping[int, str]
    projections: Array
    ablations: tuple[str, ...]
    ablation_projections: Array

    @property
    def claimed(self) -> int:
        """Number of leading components whose share exceeds the null; 0 where none does."""
        return int(np.sum(self.space.supported_))

    def title(self, i: int) -> str:
        """What component `i` (from 0) is called: the user's label, else the name made from loadings."""
        return self.labels.get(i + 1) or self.names[i].name


def find_traits(study: Study, *, n_bootstrap: int = 200, seed: int = 0) -> TraitFindings:
    """Fit the traits again and say how far each loading can be trusted."""
    matrix, space = study.matrix(), study.traits
    again = {
        "scaling": space.scaling,
        "components": space.components_,
        "n_bootstrap": n_bootstrap,
        "random_state": seed,
    }
    by_examples = loading_stability(matrix.example_gains, **again)
    names = name_traits(
        space.components_,
        matrix.tasks,
        groups={name: task_group(task) for name, task in study.tasks.items()},
        supported=space.supported_,
        stability=by_examples,
    )
    ablations = [a for a in study.ablations if any((a, t) in study.outcomes for t in matrix.tasks)]
    rows = np.array([_gains(study, name) for name in ablations])
    placed = space.transform(rows) if ablations else np.zeros((0, len(space.components_)))
    return TraitFindings(
        adapters=matrix.adapters,
        tasks=matrix.tasks,
        space=space,
        by_examples=by_examples,
        by_adapters=adapter_stability(matrix.gains, **again),
        names=names,
        labels=study.summary.traits.labels,
        projections=space.transform(matrix.gains),
        ablations=tuple(ablations),
        ablation_projections=placed,
    )


def _gains(study: Study, name: str) -> list[float]:
    """Gain on every task, NaN where `name` was not measured."""

    def mean(adapter: str | None, task: Task) -> float:
        return float(task.scores(study.outcomes[adapter, task.name]).mean())

    return [
        mean(name, task) - mean(None, task) if (name, task.name) in study.outcomes else np.nan
        for task in study.tasks.values()
    ]


SHOWN = 4
"""Components drawn, as many as the paper reads."""


def draw_scree(findings: TraitFindings) -> "Figure":
    """Share of variance of every component against the permutation null."""
    space = findings.space
    figure = new_figure(3.3, width=7.5)
    axes = figure.add_subplot()
    at = np.arange(1, len(space.components_) + 1)
    colours = [BLUE if real else "#C9C9C9" for real in space.supported_]
    axes.bar(at, 100 * space.explained_variance_ratio_, color=colours, width=0.65)
    axes.plot(at, 100 * space.null_, "o-", color=ORANGE, markersize=4, label="95% of permuted gains")
    axes.plot(at, 100 * space.null_mean_, "--", color=GREY, label="mean of permuted gains")
    axes.set(xlabel="component (blue: above the null)", ylabel="% of variance", xticks=at)
    axes.legend()
    return figure


def draw_loadings(findings: TraitFindings) -> "Figure":
    """Loadings of the first components, with intervals over resampled test examples."""
    count = min(SHOWN, len(findings.space.components_))
    height = 0.9 + 0.22 * len(findings.tasks)
    figure = new_figure(height)
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    at = np.arange(len(findings.tasks))[::-1]
    for i in range(count):
        stable, drawn = findings.by_examples, axes[i]
        drawn.axvline(0, color=GREY, linewidth=0.8)
        steady = stable.sign_share[i] >= 0.95
        for kind, colour in ((steady, BLUE), (~steady, GREY)):
            if kind.any():
                intervals(
                    drawn,
                    at[kind],
                    findings.space.components_[i][kind],
                    stable.loading_low[i][kind],
                    stable.loading_high[i][kind],
                    colour=colour,
                    open_marker=colour == GREY,
                )
        claimed = "" if findings.space.supported_[i] else "\n(not above the null)"
        drawn.set_title(f"component {i + 1}{claimed}")
        drawn.set_xlabel("loading")
        drawn.set_xlim(-1.05, 1.05)
        drawn.grid(axis="y", color="#EEEEEE")
        drawn.set_axisbelow(True)
    axes[0].set_yticks(at, [short_name(t) for t in findings.tasks])
    return figure


def draw_plane(findings: TraitFindings) -> "Figure":
    """Adapters by name, and ablations as numbered open marks, on the first two components."""
    figure = new_figure(5.2, width=WIDTH if findings.ablations else 8)
    axes = figure.add_subplot()
    axes.axhline(0, color="#DDDDDD", linewidth=0.8)
    axes.axvline(0, color="#DDDDDD", linewidth=0.8)
    adapters = _two_columns(100 * findings.projections)
    ablations = _two_columns(100 * findings.ablation_projections)
    axes.plot(*adapters.T, "o", color=BLUE, markersize=6)
    axes.plot(*ablations.T, "o", color=ORANGE, markersize=5, markerfacecolor="white")
    axes.margins(0.14)
    numbers = [str(i + 1) for i in range(len(ablations))]
    _key(figure, numbers, findings.ablations)
    names = [short_name(name, 22) for name in findings.adapters]
    place_labels(figure, axes, np.vstack([adapters, ablations]), [*names, *numbers])
    shares = 100 * findings.space.explained_variance_ratio_
    axes.set_xlabel(f"component 1, points ({shares[0]:.0f}% of variance)")
    axes.set_ylabel(f"component 2, points ({shares[1]:.0f}% of variance)" if len(shares) > 1 else "no second component")
    return figure


def draw_profiles(findings: TraitFindings) -> "Figure":
    """Trait scores of every adapter on the first components."""
    count = min(SHOWN, len(findings.space.components_))
    values = 100 * findings.projections[:, :count]
    limit = signed_limit(values)
    return heat_figure(
        values,
        height=1.4 + 0.3 * len(findings.adapters),
        width=7.5,
        rows=findings.adapters,
        columns=[f"{i + 1}{'' if findings.space.supported_[i] else ' (not claimed)'}" for i in range(count)],
        scale="trait score, points",
        xlabel="component",
        limits=(-limit, limit),
        diverging=True,
        text="+.0f",
    )[0]


def _key(figure: "Figure", numbers: list[str], names: tuple[str, ...]) -> None:
    """Beside the plot, which number is which ablation: many lie too close for their names."""
    from matplotlib.lines import Line2D

    if names:
        labels = [f"{n}  {short_name(name)}" for n, name in zip(numbers, names, strict=True)]
        nothing = [Line2D([], [], linestyle="")] * len(names)
        figure.legend(nothing, labels, loc="outside right center", title="ablations", handlelength=0)


def _two_columns(scores: np.ndarray) -> np.ndarray:
    return np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))[:, :2]


_INTRO = (
    "Principal components of the gains, by the score that routes. Components of pure noise hold large shares too when "
    "tasks and adapters are few, so a component is claimed as a trait only where its share, and that of all "
    "before it, exceeds 95% of permuted gains. Loadings are drawn anew over resampled test examples."
)
_NO_TRAITS = "Traits compare adapters: with one or two there are none to speak of."


def trait_section(findings: TraitFindings) -> Section:
    """Scree plot, loadings, and the adapters in trait space."""
    pictures = (
        Picture("scree", "Components against the permutation null", draw_scree(findings), scree_caption(findings),
                f"Bar chart of variance shares with the null as a line. {claim_sentence(findings)}"),
        Picture("loadings", "Loadings of the tasks", draw_loadings(findings), loading_caption(findings),
                "Loadings of every task on the first components, with 95% intervals."),
        Picture("trait_plane", "Adapters on the first two components", draw_plane(findings), plane_caption(findings),
                "Scatter plot of the adapters on components 1 and 2; the values are in the table of trait scores."),
        Picture("trait_profiles", "Trait profiles of the adapters", draw_profiles(findings), profile_caption(findings),
                "Heat map of trait scores, adapters by components; the values are in the table of trait scores."),
    )  # fmt: skip
    intro = f"{_INTRO} {_NO_TRAITS}" if len(findings.adapters) < 3 else _INTRO
    return Section("traits", "Traits", intro, pictures, (_components(findings), _loadings(findings), _scores(findings)))


def claim_sentence(findings: TraitFindings) -> str:
    """How many components are claimed as traits."""
    if not findings.claimed:
        return "No component exceeds the null: no trait is claimed."
    verb, noun = ("exceeds", "a trait") if findings.claimed == 1 else ("exceed", "traits")
    claimed = counted(findings.claimed, "leading component").capitalize()
    return f"{claimed} {verb} the null and {is_or_are(findings.claimed)} claimed as {noun}."


def scree_caption(findings: TraitFindings) -> str:
    """Shares against the null, and what the first four would be by chance."""
    space = findings.space
    shown = max(1, min(findings.claimed + 1, len(space.components_)))
    shares = "; ".join(
        f"component {i + 1} holds {percent(space.explained_variance_ratio_[i])} of the variance "
        f"(95% of permuted gains: {percent(space.null_[i])}), {p_value(space.p_values_[i])}"
        for i in range(shown)
    )
    first = min(SHOWN, len(space.components_))
    together = (
        f"The first {first} hold {percent(space.explained_variance_ratio_[:first].sum())} together; those of "
        f"permuted gains hold {percent(space.null_mean_[:first].sum())} on average."
    )
    return f"{shares[0].upper()}{shares[1:]}. {claim_sentence(findings)} {together}"


def loading_caption(findings: TraitFindings) -> str:
    """Names of the claimed components with their evidence; how steady the first ones are."""
    steady = "; ".join(
        f"component {i + 1}: {findings.by_examples.median[i]:.2f} over test examples, "
        f"{findings.by_adapters.median[i]:.2f} over adapters"
        for i in range(min(SHOWN, len(findings.space.components_)))
    )
    names = [
        f"component {i + 1} is called “{findings.title(i)}” ({_evidence(findings, i)})" for i in range(findings.claimed)
    ]
    called = f"{'; '.join(names)}. " if names else "No component is claimed, so none is named here. "
    return (
        f"{called[0].upper()}{called[1:]}Bars are 95% intervals; filled marks keep their sign in 95% of the resamples. "
        f"Median |cosine| with the same component found again ({findings.by_examples.chance:.2f} by chance): "
        f"{steady}."
    )


def plane_caption(findings: TraitFindings) -> str:
    """What the plane of the first two components can be read for."""
    held = findings.space.explained_variance_ratio_[:2].sum()
    open_marks = (
        f" Numbered open marks: {counted(len(findings.ablations), 'ablation')}, placed by the source tasks alone, "
        "which is all they were measured on."
        if findings.ablations
        else ""
    )
    trust = {
        0: "Neither axis exceeds the null: distances here may be noise.",
        1: "Only component 1 exceeds the null: differences up and down may be noise.",
    }.get(findings.claimed, "Both axes exceed the null.")
    return f"The plane holds {percent(held)} of the variance of the gains. {trust}{open_marks}"


def profile_caption(findings: TraitFindings) -> str:
    """Which adapter lies farthest on each claimed component."""
    ends = [
        f"on component {i + 1}, {findings.adapters[int(column.argmax())]} lies highest and "
        f"{findings.adapters[int(column.argmin())]} lowest"
        for i, column in enumerate(findings.projections.T[: findings.claimed])
    ]
    extremes = f"{', and '.join(ends)}." if ends else "no component is claimed, so their order may be noise."
    return f"What each adapter supplies, less the mean adapter, in points of gain: {extremes}"


def _evidence(findings: TraitFindings, i: int) -> str:
    reason = findings.names[i].evidence.rstrip(".")
    return f"made name: {findings.names[i].name}; {reason}" if findings.labels.get(i + 1) else reason


def _components(findings: TraitFindings) -> Table:
    space = findings.space
    rows = [
        {
            "component": i + 1,
            "name": findings.names[i].name,
            "label": findings.labels.get(i + 1, ""),
            "share": float(space.explained_variance_ratio_[i]),
            "null_95": float(space.null_[i]),
            "null_mean": float(space.null_mean_[i]),
            "p": float(space.p_values_[i]),
            "claimed": bool(space.supported_[i]),
            "cosine_examples": float(findings.by_examples.median[i]),
            "cosine_examples_low": float(findings.by_examples.low[i]),
            "cosine_adapters": float(findings.by_adapters.median[i]),
            "cosine_adapters_low": float(findings.by_adapters.low[i]),
            "cosine_chance": findings.by_examples.chance,
            "evidence": findings.names[i].evidence,
        }
        for i in range(len(space.components_))
    ]
    return Table("components", "Components, their null and their stability", rows)


def _loadings(findings: TraitFindings) -> Table:
    stable = findings.by_examples
    rows = [
        {
            "component": i + 1,
            "task": task,
            "loading": float(findings.space.components_[i, j]),
            "low": float(stable.loading_low[i, j]),
            "high": float(stable.loading_high[i, j]),
            "sign_share": float(stable.sign_share[i, j]),
        }
        for i in range(len(findings.space.components_))
        for j, task in enumerate(findings.tasks)
    ]
    return Table("loadings", "Loadings with 95% intervals over test examples", rows)


def _scores(findings: TraitFindings) -> Table:
    names = [*findings.adapters, *findings.ablations]
    values = np.vstack([findings.projections, findings.ablation_projections])
    rows = [
        {"adapter": name, "ablation": name in findings.ablations}
        | {f"component_{i + 1}": float(value) for i, value in enumerate(row)}
        for name, row in zip(names, values, strict=True)
    ]
    return Table("trait_scores", "Trait scores of adapters and ablations", rows)
