"""The section of traits: what the gains have in common, and how far to trust it."""

import numpy as np

from ...findings import TraitFindings
from ..figures.traits import SHOWN, loadings, scree, trait_plane, trait_profiles
from ..section import Picture, Section
from ..tables import Table
from ..wording import counted, p_value, percent

_INTRO = (
    "Principal components of the strict gains. Components of pure noise hold large shares too when tasks "
    "and adapters are few, so a component is claimed as a trait only where its share, and that of all "
    "before it, exceeds 95% of permuted gains. Loadings are drawn anew over resampled test examples."
)


def trait_section(found: TraitFindings) -> Section:
    """Scree plot, loadings, and the adapters in trait space."""
    pictures = (
        Picture("scree", "Components against the permutation null", scree(found), scree_caption(found),
                f"Bar chart of variance shares with the null as a line. {claim_sentence(found)}"),
        Picture("loadings", "Loadings of the tasks", loadings(found), loading_caption(found),
                "Loadings of every task on the first components, with 95% intervals."),
        Picture("trait_plane", "Adapters on the first two components", trait_plane(found), plane_caption(found),
                "Scatter plot of the adapters on components 1 and 2; the values are in the table of trait scores."),
        Picture("trait_profiles", "Trait profiles of the adapters", trait_profiles(found), profile_caption(found),
                "Heat map of trait scores, adapters by components; the values are in the table of trait scores."),
    )  # fmt: skip
    return Section("traits", "Traits", _INTRO, pictures, (_components(found), _loadings(found), _scores(found)))


def claim_sentence(found: TraitFindings) -> str:
    """How many components are claimed as traits."""
    if not found.claimed:
        return "No component exceeds the null: no trait is claimed."
    verb = "exceeds" if found.claimed == 1 else "exceed"
    return f"{counted(found.claimed, 'leading component').capitalize()} {verb} the null and {_is(found.claimed)} claimed as {'a trait' if found.claimed == 1 else 'traits'}."


def scree_caption(found: TraitFindings) -> str:
    """Shares against the null, and what the first four would be by chance."""
    space = found.space
    shown = max(1, min(found.claimed + 1, len(space.components_)))
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
    return f"{shares[0].upper()}{shares[1:]}. {claim_sentence(found)} {together}"


def loading_caption(found: TraitFindings) -> str:
    """Names of the claimed components with their evidence; how steady the first ones are."""
    steady = "; ".join(
        f"component {i + 1}: {found.by_examples.median[i]:.2f} over test examples, "
        f"{found.by_adapters.median[i]:.2f} over adapters"
        for i in range(min(SHOWN, len(found.space.components_)))
    )
    names = [f"component {i + 1} is called “{found.title(i)}” ({_evidence(found, i)})" for i in range(found.claimed)]
    called = f"{'; '.join(names)}. " if names else "No component is claimed, so none is named here. "
    return (
        f"{called[0].upper()}{called[1:]}Bars are 95% intervals; filled marks keep their sign in 95% of the resamples. Median |cosine| with the "
        f"same component found again ({found.by_examples.chance:.2f} by chance): {steady}."
    )


def plane_caption(found: TraitFindings) -> str:
    """What the plane of the first two components can be read for."""
    held = found.space.explained_variance_ratio_[:2].sum()
    open_marks = (
        f" Numbered open marks: {counted(len(found.ablations), 'ablation')}, placed by the source tasks alone, which "
        "is all they were measured on."
        if found.ablations
        else ""
    )
    trust = {
        0: "Neither axis exceeds the null: distances here may be noise.",
        1: "Only component 1 exceeds the null: differences up and down may be noise.",
    }.get(found.claimed, "Both axes exceed the null.")
    return f"The plane holds {percent(held)} of the variance of the gains. {trust}{open_marks}"


def profile_caption(found: TraitFindings) -> str:
    """Which adapter lies farthest on each claimed component."""
    ends = [
        f"on component {i + 1}, {found.adapters[int(column.argmax())]} lies highest and "
        f"{found.adapters[int(column.argmin())]} lowest"
        for i, column in enumerate(found.projections.T[: found.claimed])
    ]
    said = f"{', and '.join(ends)}." if ends else "no component is claimed, so their order may be noise."
    return f"What each adapter supplies, less the mean adapter, in points of gain: {said}"


def _evidence(found: TraitFindings, i: int) -> str:
    reason = found.names[i].evidence.rstrip(".")
    return f"made name: {found.names[i].name}; {reason}" if found.labels.get(i + 1) else reason


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _components(found: TraitFindings) -> Table:
    space = found.space
    rows = [
        {
            "component": i + 1,
            "name": found.names[i].name,
            "label": found.labels.get(i + 1, ""),
            "share": float(space.explained_variance_ratio_[i]),
            "null_95": float(space.null_[i]),
            "null_mean": float(space.null_mean_[i]),
            "p": float(space.p_values_[i]),
            "claimed": bool(space.supported_[i]),
            "cosine_examples": float(found.by_examples.median[i]),
            "cosine_examples_low": float(found.by_examples.low[i]),
            "cosine_adapters": float(found.by_adapters.median[i]),
            "cosine_adapters_low": float(found.by_adapters.low[i]),
            "cosine_chance": found.by_examples.chance,
            "evidence": found.names[i].evidence,
        }
        for i in range(len(space.components_))
    ]
    return Table("components", "Components, their null and their stability", rows)


def _loadings(found: TraitFindings) -> Table:
    stable = found.by_examples
    rows = [
        {
            "component": i + 1,
            "task": task,
            "loading": float(found.space.components_[i, j]),
            "low": float(stable.loading_low[i, j]),
            "high": float(stable.loading_high[i, j]),
            "sign_share": float(stable.sign_share[i, j]),
        }
        for i in range(len(found.space.components_))
        for j, task in enumerate(found.tasks)
    ]
    return Table("loadings", "Loadings with 95% intervals over test examples", rows)


def _scores(found: TraitFindings) -> Table:
    names = [*found.adapters, *found.ablations]
    values = np.vstack([found.projections, found.ablation_projections])
    rows = [
        {"adapter": name, "ablation": name in found.ablations}
        | {f"component_{i + 1}": float(value) for i, value in enumerate(row)}
        for name, row in zip(names, values, strict=True)
    ]
    return Table("trait_scores", "Trait scores of adapters and ablations", rows)
