"""When the base model answers: z from what was held out, and what there is to lose."""

import numpy as np
import pytest
from traitroute.router.guard import FEW_GROUPS_Z, LEAST_CARE, Z_GRID, Realised, care, expected_base, smallest_z


def harms(counts: list[int], groups: int, *, loss: float = 0.1, gain: float = 0.1) -> list[Realised]:
    """At each z the first groups are harmed, so many; at all further ones none."""
    padded = np.array([*counts, *[0] * (len(Z_GRID) - len(counts))])
    harmed = np.arange(groups) < padded[:, None]
    return [Realised(np.where(harmed, -loss, gain), harmed)]


def at(z: float) -> int:
    """The place of `z`."""
    return int(np.flatnonzero(z == Z_GRID)[0])


def test_risk_is_kept_with_one_more_group_counted_as_harmed() -> None:
    falling = [5, 2, 1, 0]
    assert smallest_z(harms(falling, 60), 0.05) == Z_GRID[1]
    assert smallest_z(harms(falling, 40), 0.05) == Z_GRID[2]
    assert smallest_z(harms(falling, 20), 0.05) == Z_GRID[3]


def test_harm_at_every_z_gives_the_highest() -> None:
    assert smallest_z(harms([9] * len(Z_GRID), 40), 0.05) == Z_GRID[-1]


def test_without_harm_there_is_no_margin_but_where_few_groups_cannot_show_it() -> None:
    assert [smallest_z(harms([0], groups), 0.05) for groups in (1, 18, 19, 60)] == [FEW_GROUPS_Z, FEW_GROUPS_Z, 0, 0]


def test_what_few_groups_lose_is_weighed_against_all_that_is_gained() -> None:
    # One of six loses at first. What it loses may be 5% of all points moved: of 0.1 that takes gains of 1.9.
    assert smallest_z(harms([1] * 11, 6, gain=0.37), 0.05) == Z_GRID[11] > FEW_GROUPS_Z
    assert smallest_z(harms([1] * 11, 6, gain=0.39), 0.05) == FEW_GROUPS_Z
    assert smallest_z([*harms([1] * 11, 6, gain=0.2), *harms([0], 6, gain=0.2)], 0.05) == FEW_GROUPS_Z
    assert smallest_z(harms([6] * len(Z_GRID), 6), 0.05) == Z_GRID[-1]


def test_a_loss_that_one_of_many_groups_has_by_chance_is_no_harm() -> None:
    # A tenth of the answers lost, none won: 2.1 standard errors, which is nothing among 24 groups, and something of one
    # alone.
    gains = np.where(np.arange(40) < 4, -1.0, 0.0)[:, None]
    ones, error, group = np.ones((40, 1)), np.full(40, 0.1), np.zeros(40, np.intp)
    assert Realised.of(ones, error, gains, group, count=1, tests=1).harmed[0].tolist() == [True]
    assert Realised.of(ones, error, gains, group, count=1, tests=24).harmed[0].tolist() == [False]


def test_group_that_surely_loses_is_harmed_until_the_margin_keeps_it_from_adapters() -> None:
    groups = np.repeat([0, 1], 20)
    predicted = np.where(groups == 0, 0.5, 0.2)[:, None]
    gains = np.where(groups == 0, 1.0, -1.0)[:, None]
    found = Realised.of(predicted, np.full(40, 0.2), gains, groups, count=2, tests=2).harmed
    assert found[at(0.5)].tolist() == [False, True]
    assert found[at(1.0)].tolist() == [False, False]
    assert found[at(3.0)].tolist() == [False, False]


def test_a_group_without_requests_is_not_harmed() -> None:
    nothing = np.zeros(20, np.intp)
    found = Realised.of(np.ones((20, 1)), np.full(20, 0.1), -np.ones((20, 1)), nothing, count=2, tests=2).harmed
    assert found[0].tolist() == [True, False]


def test_what_base_does_in_general_is_drawn_to_an_even_chance_where_few_groups_were_profiled() -> None:
    none, much, near = np.array(0.0), np.array(0.9), np.array(0.6)
    weights = np.array([0.6, 1.0, 0.0, 0.0])
    few, many = (float(expected_base(none, none, weights, groups)) for groups in (5, 95))
    assert few == pytest.approx(0.25)
    assert many == pytest.approx(0.025)
    assert float(expected_base(none, near, weights, 5)) == pytest.approx(0.85)
    assert float(expected_base(much, near, weights, 95)) == 1.0


def test_there_is_most_to_lose_where_base_is_right_half_of_the_time() -> None:
    least = LEAST_CARE
    np.testing.assert_allclose(care(np.array([0.0, 0.5, 1.0, -0.1, 1.3])), [least, 1.0, least, least, least])
    assert care(np.array(0.1)) == pytest.approx(0.6)
