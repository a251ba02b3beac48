"""The stream of requests is kept in windows, the newest ones only."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from traitroute.adapters import DemandWindow, Registry
from traitroute.adapters.registry import traffic as demand_table


def window(requests: int, **changes: object) -> DemandWindow:
    fields = {
        "profile_version": 1,
        "requests": requests,
        "novel": 1,
        "features": DemandWindow.pack([np.array([0.5, -1.0])]),
    }
    return DemandWindow.model_validate(fields | changes)


def test_windows_come_back_in_their_order(registry: Registry) -> None:
    given = [window(3), window(2)]
    for each in given:
        registry.put_demand_window(each)
    assert registry.demand_windows() == given
    np.testing.assert_array_equal(registry.demand_windows()[0].rows(), [[0.5, -1.0]])


def test_windows_are_listed_from_a_time_on(registry: Registry) -> None:
    now = datetime.now(UTC)
    registry.put_demand_window(window(1, created_at=now - timedelta(days=2)))
    registry.put_demand_window(window(2))
    assert [w.requests for w in registry.demand_windows(since=now - timedelta(days=1))] == [2]


def test_the_oldest_windows_are_forgotten(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand_table, "KEPT_WINDOWS", 2)
    for requests in (1, 2, 3):
        registry.put_demand_window(window(requests))
    assert [w.requests for w in registry.demand_windows()] == [2, 3]
