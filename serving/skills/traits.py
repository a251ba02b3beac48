"""Traits as a profile's summary holds them: names, loadings, null, stability, and where each skill lies."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..http.models import Page
from .models import Loading, SkillTrait, Trait, TraitMap, TraitScores


def trait_map(summary: Mapping[str, Any], version: int, page: Page) -> TraitMap:
    """All components of a profile, the traits first, and the scores of a page of its adapters."""
    rows, following = page.of(summary["adapters"])
    return TraitMap(
        profile_version=version,
        n_traits=summary["n_traits"],
        traits=tuple(_trait(summary, i) for i in range(len(summary["loadings"]))),
        skills=tuple(
            TraitScores(name=name, scores=tuple(scores))
            for name, scores in zip(summary["adapters"][rows], summary["trait_scores"][rows], strict=True)
        ),
        next=following,
    )


def skill_traits(summary: Mapping[str, Any], adapter: str) -> tuple[SkillTrait, ...]:
    """How much an adapter supplies of each component; none where it is in no matrix yet."""
    if adapter not in summary["adapters"]:
        return ()
    scores = summary["trait_scores"][summary["adapters"].index(adapter)]
    return tuple(
        SkillTrait(index=i + 1, name=trait_name(summary, i), score=score, trait=is_trait(summary, i))
        for i, score in enumerate(scores)
    )


def is_trait(summary: Mapping[str, Any], i: int) -> bool:
    """Whether component `i`, from 0, is a trait: its share of variance exceeds the permutation null.

    A profile keeps one component at least, also where none does.
    """
    return i < summary["n_traits"] and summary["explained_variance"][i] > summary["null"][i]


def trait_name(summary: Mapping[str, Any], i: int) -> str:
    """What component `i`, from 0, is called: the owner's label, else the name given to it, else its number."""
    names: Sequence[Mapping[str, Any]] = summary.get("trait_names", ())
    label = summary.get("trait_labels", {}).get(str(i + 1))
    return label or (names[i]["name"] if i < len(names) else f"component {i + 1}")


def _trait(summary: Mapping[str, Any], i: int) -> Trait:
    names: Sequence[Mapping[str, Any]] = summary.get("trait_names", ())
    stability = summary.get("stability", {}).get("examples", {})
    return Trait(
        index=i + 1,
        name=trait_name(summary, i),
        label=summary.get("trait_labels", {}).get(str(i + 1)),
        evidence=names[i]["evidence"] if i < len(names) else "",
        trait=is_trait(summary, i),
        variance=summary["explained_variance"][i],
        null=summary["null"][i],
        p=summary["p_values"][i],
        stability=_at(stability.get("median"), i),
        loadings=_loadings(summary, stability, i),
    )


def _loadings(summary: Mapping[str, Any], stability: Mapping[str, Any], i: int) -> tuple[Loading, ...]:
    low, high = _at(stability.get("loading_low"), i), _at(stability.get("loading_high"), i)
    return tuple(
        Loading(task=task, weight=weight, low=_at(low, j), high=_at(high, j))
        for j, (task, weight) in enumerate(zip(summary["tasks"], summary["loadings"][i], strict=True))
    )


def _at(values: Sequence[Any] | None, i: int) -> Any:
    return values[i] if values is not None and i < len(values) else None
