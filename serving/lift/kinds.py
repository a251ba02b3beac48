"""The kinds of request that a report tells apart: profiled tasks, or clusters of them where they are many.

With a hundred tasks each has a handful of conversations that were held back, and nothing is known of any. So tasks
whose requests are alike, in words and in meaning as the router sees them, are one kind. Clusters go by the profile
alone, and not by outcomes, so intervals hold for them as they do for tasks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...adapters import RegistryError, StoredProfile
from ...router import RoutingProfile

MOST_KINDS = 20
"""So many kinds at most, besides requests that are like no task."""


def kinds_of(profile: StoredProfile, *, most: int = MOST_KINDS) -> dict[str, str]:
    """The kind of each task of a profile whose tasks are more than `most`; none where each is a kind of its own.

    So it is too where the profile is of a format that this version cannot read: outcomes are worth a report all the
    same.
    """
    if len(profile.summary.tasks) <= most:
        return {}
    try:
        routing = RoutingProfile.from_bytes(profile.data)
    except RegistryError:
        return {}
    return clusters(routing.tasks, routing.kinds.alike, most)


def clusters(tasks: Sequence[str], alike: NDArray[np.float64], most: int) -> dict[str, str]:
    """The name of each task's cluster, of at most so many, by how alike the tasks are, (t, t) from 0 to 1.

    A cluster has the name of the task that the others in it are most like. Complete linkage: no two tasks of a cluster
    are much less alike than the others, where single tasks would else be left beside one large cluster.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    upper = np.triu_indices(len(tasks), 1)
    places = fcluster(linkage(1 - np.clip(alike[upper], 0, 1), "complete"), most, "maxclust")
    named = {}
    for place in np.unique(places):
        own = np.flatnonzero(places == place)
        middle = tasks[int(own[alike[np.ix_(own, own)].sum(axis=1).argmax()])]
        name = middle if len(own) == 1 else f"{middle} and {len(own) - 1} like it"
        named |= {tasks[i]: name for i in own}
    return named
