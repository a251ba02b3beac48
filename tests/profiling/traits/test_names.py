"""Traits are called after what they raise and lower, and keep the labels that users gave."""

from typing import Any

import numpy as np
import pytest
from made_up_summary import made_up_summary, made_up_traits, steady
from numpy.typing import NDArray
from traitroute.adapters import ProfileSummary, Stability, TraitName
from traitroute.profiling import Task
from traitroute.profiling.traits.names import (
    inherited_labels,
    name_traits,
    task_group,
)

Array = NDArray[np.float64]

GROUPS = {
    "imdb": "classification (2 labels)",
    "paws": "classification (2 labels)",
    "mnli": "classification (3 labels)",
    "gsm8k": "math",
    "goat": "math",
    "code": "free text",
}
TASKS = tuple(GROUPS)


def named(*loadings: float, **options: Any) -> TraitName:
    """The name of one component; the loadings are brought to length 1."""
    component = np.array([loadings]) / np.linalg.norm(loadings)
    return name_traits(component, TASKS, groups=GROUPS, **options)[0]


def steadiness(sign_share: list[float]) -> Stability:
    return steady(np.zeros((1, len(sign_share))), sign_share=[sign_share], median=[0.93], low=[0.81])


@pytest.mark.parametrize(
    ("loadings", "name"),
    [
        ((3, 3, 0, -2, -2, 0), "classification (2 labels) up, math down"),
        ((2, 2, 2, -2, -2, 0), "classification up, math down"),
        ((0, 0, 0, 3, 2, 0.1), "math up"),
        ((3, 0, 0, 0, 2.5, -2), "imdb and goat up, code down"),  # a group of one is its task
        ((3, -3, 0, 0, 0, 0), "imdb up, paws down"),  # a group on both sides says nothing
        ((0, 0, 3, -2.5, 2, 0), "mnli and goat up, gsm8k down"),  # math is on both sides
        ((2, 2, 2, 2, 2, 2), "most tasks up"),
        ((3, 2, 0, -0.5, 0, 0), "classification (2 labels) up"),  # the other side is too small
        ((3, 1, 0, -2, -2, 0), "imdb up, math down"),  # one task is no group
    ],
)
def test_a_side_is_called_after_its_group_or_its_strongest_tasks(loadings: tuple[float, ...], name: str) -> None:
    assert named(*loadings).name == name


def test_a_group_of_nearly_all_tasks_is_no_name() -> None:
    names = name_traits(np.array([[0.8, -0.6, 0, 0]]), "abcd", groups={**dict.fromkeys("abc", "math"), "d": "json"})
    assert names[0].name == "a up, b down"


def test_evidence_gives_counts_and_shares() -> None:
    name = named(3, 2, 0, -2.5, -2.5, 0)
    assert name.evidence == (
        "classification (2 labels): 2 of 6 tasks hold 100% of what rises; math: 2 of 6 tasks hold 100% of what falls."
    )
    assert [task for task, _ in name.raises] == ["imdb"]  # paws is below the average size
    assert [task for task, _ in name.lowers] == ["gsm8k", "goat"]
    assert name.lowers[0][1] == pytest.approx(-2.5 / np.sqrt(25.5))


def test_a_component_within_its_null_is_marked() -> None:
    name = named(3, 3, 0, -2, -2, 0, supported=[False])
    assert name.name.startswith("unsupported: classification (2 labels) up")
    assert "does not exceed the permutation null" in name.evidence
    assert named(3, 3, 0, -2, -2, 0, supported=[True]).name.startswith("classification")


def test_loadings_whose_sign_wavers_are_not_named() -> None:
    stability = steadiness([0.8, 0.99, 0.5, 0.99, 0.99, 0.5])
    name = named(3, 2.5, 0, -2, -2, 3, stability=stability)
    assert name.name == "paws up, math down"
    assert [task for task, _ in name.raises] == ["paws"]
    assert "|cosine| 0.93 (2.5% point 0.81, chance 0.40), 3 of 6 loadings" in name.evidence


def test_a_side_without_steady_loadings_is_still_called_something() -> None:
    assert named(3, 0, 0, 2, 0, 0, stability=steadiness([0.6] * 6)).name == "imdb and gsm8k up"


@pytest.mark.parametrize(
    ("settings", "group"),
    [
        ({"metric": "label", "labels": ("no", "yes")}, "classification (2 labels)"),
        ({"metric": "number"}, "math"),
        ({"metric": "json"}, "json"),
        ({"metric": "text"}, "free text"),
        ({"metric": "exact"}, "exact answer"),
    ],
)
def test_a_task_belongs_with_those_answered_alike(settings: dict[str, Any], group: str) -> None:
    task = Task.model_validate({"name": "t", "rows": {"built_in": "mini", "dataset": "structured"}, **settings})
    assert task_group(task) == group


def summary(components: Array, **labels: str) -> ProfileSummary:
    numbered = {int(index.removeprefix("c")): label for index, label in labels.items()}
    return made_up_summary(tasks="abcd", traits=made_up_traits(components, labels=numbered))


def test_labels_follow_their_components() -> None:
    frame = np.eye(4)
    before = summary(frame[:3], c1="stops early", c3="counts")
    assert inherited_labels(before, "abcd", frame[[2, 1, 0]]) == {3: "stops early", 1: "counts"}


def test_labels_follow_when_tasks_change_places() -> None:
    before = summary(np.array([[0.8, 0.6, 0, 0]]), c1="stops early")
    assert inherited_labels(before, "dcba", np.array([[0, 0, 0.6, 0.8]])) == {1: "stops early"}


@pytest.mark.parametrize(("cosine", "kept"), [(0.95, {1: "stops early"}), (0.85, {})])
def test_a_label_needs_a_component_much_like_its_own(cosine: float, kept: dict[int, str]) -> None:
    near = np.array([[cosine, np.sqrt(1 - cosine**2), 0, 0]])
    assert inherited_labels(summary(np.eye(4)[:1], c1="stops early"), "abcd", near) == kept


def test_a_turned_component_says_so_until_it_turns_back() -> None:
    e = np.eye(4)[:1]
    turned = inherited_labels(summary(e, c1="stops early"), "abcd", -e)
    assert turned == {1: "stops early (reversed)"}
    back = inherited_labels(summary(-e, c1=turned[1]), "abcd", e)
    assert back == {1: "stops early"}


def test_nothing_is_inherited_without_labels_or_over_other_tasks() -> None:
    e = np.eye(4)[:1]
    assert inherited_labels(None, "abcd", e) == {}
    assert inherited_labels(summary(e), "abcd", e) == {}
    assert inherited_labels(summary(e, c1="stops early"), "abce", e) == {}
    more = np.eye(5)[:1]
    assert inherited_labels(summary(e, c1="stops early"), "abcde", more) == {}
    assert inherited_labels(summary(e, c1="stops early"), "abcde", more, added="e") == {1: "stops early"}
