"""The traits of a profile as the API shows them, and where each skill lies."""

from ...adapters import FittedTraits
from ..http.models import Page
from ..profile_snapshot import ProfileSnapshot
from .models import Loading, SkillTrait, Trait, TraitMap, TraitScores


def trait_map(snapshot: ProfileSnapshot, page: Page) -> TraitMap:
    """All components of a profile, the traits first, and the scores of a page of its adapters."""
    traits, adapters = snapshot.traits, snapshot.measured.adapters
    rows, following = page.of(adapters)
    return TraitMap(
        profile_version=snapshot.version,
        n_traits=traits.n_traits,
        traits=tuple(_trait(traits, snapshot.measured.tasks, i) for i in range(len(traits))),
        skills=tuple(
            TraitScores(name=name, scores=tuple(scores))
            for name, scores in zip(adapters[rows], snapshot.trait_scores[rows].tolist(), strict=True)
        ),
        next=following,
    )


def skill_traits(snapshot: ProfileSnapshot, adapter: str) -> tuple[SkillTrait, ...]:
    """How much an adapter supplies of each component; none where it is in no matrix yet."""
    traits, adapters = snapshot.traits, snapshot.measured.adapters
    if adapter not in adapters:
        return ()
    return tuple(
        SkillTrait(index=i + 1, name=traits.name(i), score=score, trait=traits.is_trait(i))
        for i, score in enumerate(snapshot.trait_scores[adapters.index(adapter)].tolist())
    )


def _trait(traits: FittedTraits, tasks: tuple[str, ...], i: int) -> Trait:
    stability = traits.by_examples
    bounds = zip(tasks, traits.loadings[i], stability.loading_low[i], stability.loading_high[i], strict=True)
    return Trait(
        index=i + 1,
        name=traits.name(i),
        label=traits.label(i),
        evidence=traits.names[i].evidence,
        trait=traits.is_trait(i),
        variance=float(traits.explained_variance[i]),
        null=float(traits.null[i]),
        p=float(traits.p_values[i]),
        stability=float(stability.median[i]),
        loadings=tuple(
            Loading(task=t, weight=float(w), low=float(low), high=float(high)) for t, w, low, high in bounds
        ),
    )
