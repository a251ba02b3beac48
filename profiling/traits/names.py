"""Names of traits: made from the loadings, with the evidence; and labels that users gave, carried over.

A component has two sides, the tasks it raises and those it lowers. A side is called after a group of tasks
(`task_group`) that holds 70% of the side's squared loadings and has 70% of its own on that side, otherwise
after the side's two strongest tasks, or after one that holds 70% alone. A group of one task, or of 70% of all
tasks, says no more than these and is passed over. A component of one side only, spread over at least half of
the tasks, is "most tasks up".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...adapters import ProfileSummary, Stability, TraitName
from ..tasks.task import Task

Array = NDArray[np.float64]
Loading = tuple[str, float]

GROUP_SHARE = 0.7
SIDE_SHARE = 0.1
"""A side with less of a component's squared loadings than this does not go into its name."""
STEADY_SIGN = 0.95
INHERITED_COSINE = 0.9
UNSUPPORTED = "unsupported: "
_REVERSED = " (reversed)"
_LISTED = 5
_NAMED = 2


@dataclass(frozen=True)
class _Side:
    """Loadings (tasks,) of one side of a component, 0 elsewhere, and the group that leads there."""

    direction: Literal["up", "down"]
    loadings: Array
    group: str | None = None

    @property
    def share(self) -> float:
        """Share of the component's squared loadings."""
        return float(np.sum(self.loadings**2))


def task_group(task: Task) -> str:
    """The family of a task, by how it is answered: "classification (2 labels)", "math", "json", ..."""
    if task.labels:
        return f"classification ({len(task.labels)} labels)"
    return task.metric.family


def name_traits(
    components: Array,
    tasks: Sequence[str],
    *,
    groups: Mapping[str, str],
    supported: Sequence[bool] | NDArray[np.bool_] | None = None,
    stability: Stability | None = None,
) -> tuple[TraitName, ...]:
    """Name each of `components` (r, tasks), loadings of length 1.

    `groups` maps every task to its family; text in brackets after a family is a subdivision, and the
    whole family is tried where no subdivision leads. `supported` (r,) says which components exceed
    their null: the others are marked. With `stability`, only loadings that keep their sign in 95% of
    the bootstraps are listed.
    """
    families = [groups[task] for task in tasks]
    names = []
    for i, loadings in enumerate(components):
        sides = _sides(loadings, families)
        firm = loadings if stability is None else _firm(loadings, stability.sign_share[i])
        name, evidence = _describe(sides, firm, tasks, families)
        if stability is not None:
            evidence += f"; {_steadiness(stability, i)}"
        if supported is not None and not supported[i]:
            name = UNSUPPORTED + name
            evidence += "; its share of variance does not exceed the permutation null"
        large = np.where(firm**2 >= 1 / len(tasks), firm, 0)
        raises, lowers = (_strongest(part, tasks) for part in (large.clip(0), large.clip(max=0)))
        names.append(TraitName(name=name, raises=raises, lowers=lowers, evidence=f"{evidence}."))
    return tuple(names)


def inherited_labels(
    previous: ProfileSummary | None, tasks: Sequence[str], components: Array, *, added: Sequence[str] = ()
) -> dict[int, str]:
    """Labels of the previous profile, by component from 1, for those of `components` (r, tasks) that it had already.

    A label goes to the component with |cosine| of at least 0.9 to the one it was given to, and says
    "(reversed)" while the sign is turned. Nothing is carried over unless the tasks are those of the previous profile
    and those `added`.
    """
    if previous is None or set(previous.tasks) | set(added) != set(tasks):
        return {}
    loadings = np.zeros((len(previous.traits), len(tasks)))
    loadings[:, [tasks.index(task) for task in previous.tasks]] = previous.traits.loadings
    cosines = components @ loadings.T
    inherited = {}
    for index, label in previous.traits.labels.items():
        column = cosines[:, index - 1]
        # Components are orthogonal, so no other label can come this near to the same one.
        nearest = int(np.abs(column).argmax())
        if abs(column[nearest]) >= INHERITED_COSINE:
            inherited[nearest + 1] = label if column[nearest] > 0 else _turned(label)
    return inherited


def _turned(label: str) -> str:
    return label.removesuffix(_REVERSED) if label.endswith(_REVERSED) else label + _REVERSED


def _sides(loadings: Array, families: Sequence[str]) -> list[_Side]:
    parts: tuple[tuple[Literal["up", "down"], Array], ...] = (("up", loadings.clip(0)), ("down", loadings.clip(max=0)))
    sides = [_Side(way, part, _leading(part, loadings, families)) for way, part in parts]
    return [side for side in sides if side.share >= SIDE_SHARE]


def _leading(side: Array, loadings: Array, families: Sequence[str]) -> str | None:
    """The group that `side` of `loadings` may be called after; see the rule in this module's head."""
    if np.max(side**2) >= GROUP_SHARE * np.sum(side**2):
        return None
    for group in dict.fromkeys([*families, *(family.partition(" (")[0] for family in families)]):
        members = _members(group, families)
        held = np.sum(side[members] ** 2)
        leads = held >= GROUP_SHARE * np.sum(side**2)
        on_this_side = held >= GROUP_SHARE * np.sum(loadings[members] ** 2)
        if leads and on_this_side and 1 < members.sum() < GROUP_SHARE * len(families):
            return group
    return None


def _members(group: str, families: Sequence[str]) -> NDArray[np.bool_]:
    """Which tasks belong to a family, or to a subdivision of one."""
    return np.array([group in (family, family.partition(" (")[0]) for family in families])


def _firm(loadings: Array, sign_share: Array) -> Array:
    """Loadings that keep their sign, 0 elsewhere."""
    return np.where(sign_share >= STEADY_SIGN, loadings, 0)


def _describe(sides: Sequence[_Side], firm: Array, tasks: Sequence[str], families: Sequence[str]) -> tuple[str, str]:
    """A name for the sides of a component, and the evidence."""
    spread = 1 / sum(float(np.sum(side.loadings**4)) for side in sides)
    if len(sides) == 1 and sides[0].group is None and spread >= len(tasks) / 2:
        share = f"{100 * sides[0].share:.0f}% of the squared loadings are on one side"
        return f"most tasks {sides[0].direction}", f"{share}, on {spread:.0f} tasks in effect"
    named = [_side_name(side, firm, tasks, families) for side in sides]
    return ", ".join(name for name, _ in named), "; ".join(why for _, why in named)


def _side_name(side: _Side, firm: Array, tasks: Sequence[str], families: Sequence[str]) -> tuple[str, str]:
    """What to call a side, and why: its group, or its strongest tasks, firm ones where there are any."""
    if side.group:
        called = side.group
        members = _members(side.group, families)
        who = f"{called}: {members.sum()} of {len(tasks)} tasks hold"
    else:
        firm_here = np.where(side.loadings != 0, firm, 0)
        shown = firm_here if firm_here.any() else side.loadings
        alone = np.max(shown**2) >= GROUP_SHARE * np.sum(shown**2)
        strongest = _strongest(shown, tasks)[: 1 if alone else _NAMED]
        called = " and ".join(task for task, _ in strongest)
        members = np.isin(tasks, [task for task, _ in strongest])
        who = f"{called} {'holds' if len(strongest) == 1 else 'hold'}"
    held = np.sum(side.loadings[members] ** 2) / side.share
    moves = "rises" if side.direction == "up" else "falls"
    return f"{called} {side.direction}", f"{who} {100 * held:.0f}% of what {moves}"


def _strongest(loadings: Array, tasks: Sequence[str]) -> tuple[Loading, ...]:
    order = np.argsort(-np.abs(loadings), kind="stable")[:_LISTED]
    return tuple((tasks[int(i)], float(loadings[i])) for i in order if loadings[i])


def _steadiness(stability: Stability, i: int) -> str:
    kept = int(np.sum(stability.sign_share[i] >= STEADY_SIGN))
    return (
        f"found again at |cosine| {stability.median[i]:.2f} (2.5% point {stability.low[i]:.2f}, "
        f"chance {stability.chance:.2f}), {kept} of {stability.sign_share.shape[1]} loadings with "
        f"the same sign in {100 * STEADY_SIGN:.0f}% of bootstraps"
    )
