"""Many profiled tasks are few kinds of request, by what their requests have in common."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from traitroute.adapters import FeedbackSource, Registry
from traitroute.router import RoutingProfile
from traitroute.serving.lift import LiftReport
from traitroute.serving.lift.kinds import clusters, kinds_of
from traitroute.serving.lift.outcomes import Reported

TASKS = ("soup", "stew", "roast", "orbit", "moon")


def alike() -> np.ndarray:
    """Dishes are alike, the stew most to the others; so are what flies and what it flies to."""
    near = np.full((5, 5), 0.1)
    near[:3, :3], near[3:, 3:] = 0.6, 0.5
    near[1, [0, 2]] = near[[0, 2], 1] = 0.8
    np.fill_diagonal(near, 1.0)
    return near


def test_alike_tasks_are_one_kind_with_the_name_of_the_one_in_their_middle() -> None:
    named = clusters(TASKS, alike(), 2)
    assert [named[task] for task in TASKS] == ["stew and 2 like it"] * 3 + ["orbit and 1 like it"] * 2
    assert Counter(clusters(TASKS, alike(), 4).values()).most_common(1) == [("soup and 1 like it", 2)]
    assert clusters(TASKS, alike(), 5) == {task: task for task in TASKS}


def test_a_profile_of_few_tasks_is_shown_by_task_and_one_of_many_by_cluster(registry: Registry) -> None:
    profile = registry.latest_profile()
    assert profile is not None
    tasks = RoutingProfile.from_bytes(profile.data).tasks
    assert kinds_of(profile) == {}
    named = kinds_of(profile, most=len(tasks) - 1)
    assert set(named) == set(tasks)
    assert len(set(named.values())) == len(tasks) - 1
    assert kinds_of(replace(profile, data=b"of another version"), most=1) == {}


def test_a_kind_is_all_of_its_tasks_and_says_which(talks: Callable[..., Any], later: datetime) -> None:
    told = [*talks(0.3, 2000), *talks(0.3, 1000, seed=1, kind="baking"), *talks(0.0, 500, seed=2, kind="law")]
    told = [each.__class__(**vars(each) | {"conversation": str(i)}) for i, each in enumerate(told)]
    kind_of = {"cooking": "cooking and 1 like it", "baking": "cooking and 1 like it", "tax": "tax"}
    found = LiftReport.of(Reported(FeedbackSource.USER, told, kinds=3, kind_of=kind_of), later)
    # What an earlier profile knew, and this one does not, stays a kind of its own.
    shown = [(each.name, each.tasks, each.conversations) for each in found.kinds]
    assert shown == [("cooking and 1 like it", ("cooking", "baking"), 3000), ("law", (), 500)]
    [alone] = [each for each in LiftReport.of(Reported(FeedbackSource.USER, told, kinds=3), later).kinds[:1]]
    both, one = found.kinds[0].estimate, alone.estimate
    assert both is not None and one is not None
    assert both.high - both.low < one.high - one.low
