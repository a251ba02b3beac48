"""What `--on` may name."""

import pytest
from traitroute.adapters import InputError
from traitroute.profiling.execution.places import check_place


@pytest.mark.parametrize("place", ["local", "local:1", "local:16", "ray", "ray:head:6379", "ray://10.0.0.7:10001"])
def test_a_place_is_this_machine_or_a_cluster(place: str) -> None:
    check_place(place)


@pytest.mark.parametrize(
    "place", ["", "moon", "local:0", "local:-1", "local:1000", "local:two", "ray:", "ray:head", "ray:// x"]
)
def test_another_is_refused_with_those_there_are(place: str) -> None:
    with pytest.raises(InputError, match=r"wanted local \(this process\), local:N .* ray://HOST:10001"):
        check_place(place)
