"""An adapter that is added becomes routable, is set aside, or waits, whatever happens to its worker."""

import pytest
from traitroute.adapters import AdapterState
from traitroute.router import RoutingProfile
from traitroute.serving.jobs import JobState

pytestmark = pytest.mark.slow


def test_an_added_adapter_is_measured_and_joins_the_profile(site) -> None:
    before = site.house.registry.latest_profile()
    site.house.add("new", seed=7)
    site.start_worker()
    site.await_state("new", AdapterState.READY)
    after = site.house.registry.latest_profile()
    [job] = site.jobs()
    assert (job.state, job.done, job.total) == (JobState.DONE, 6, 6)
    assert (after.version, after.origin, after.parent) == (
        job.profile_version,
        "row",
        before.version,
    )
    old, new = RoutingProfile.from_bytes(before.data), RoutingProfile.from_bytes(after.data)
    assert new.adapters == (*old.adapters, "new")
    assert new.trait_scores[:3].tolist() == old.trait_scores.tolist()
    assert len(site.notes.asked) == len(set(site.notes.asked))
