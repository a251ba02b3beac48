"""What controls explain and ablations change, on planted gains."""

import numpy as np
import pytest
from scipy.stats import binomtest
from traitroute.adapters import InputError, Outcomes
from traitroute.profiling.report.ablations import Explained, explained_rows
from traitroute.profiling.statistics.significance import compare, paired_bootstrap

from ...made_up_outcomes import made_up_outcomes

Cells = dict[tuple[str | None, str], Outcomes]


def answers(rng: np.random.Generator, chance: float, n: int = 300) -> np.ndarray:
    return rng.random(n) < chance


def outcomes(strict: np.ndarray) -> Outcomes:
    return made_up_outcomes(strict, lenient=True, log_likelihood=-2.0 * strict, target_tokens=2)


def cells(rng: np.random.Generator, chances: dict[str | None, float], sizes: list[int]) -> Cells:
    return {
        (name, f"t{column}"): outcomes(answers(rng, chance, n))
        for column, n in enumerate(sizes)
        for name, chance in chances.items()
    }


def explained(
    base: np.ndarray, adapter: np.ndarray, control: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> Explained:
    measured = {(name, "t"): outcomes(s) for name, s in ((None, base), ("a", adapter), ("c", control))}
    return explained_rows(measured, "a", "c", ["t"], n_resamples=n_resamples, seed=seed).pooled


@pytest.mark.parametrize(("chance", "share"), [(0.2, 0), (0.4, 0.5), (0.6, 1)])
def test_planted_share_lies_in_its_interval(chance: float, share: float) -> None:
    rng = np.random.default_rng(0)
    found = explained(answers(rng, 0.2), answers(rng, 0.6), answers(rng, chance))
    assert found.share_low <= share <= found.share_high
    assert found.share == pytest.approx(share, abs=0.15)
    assert found.share == pytest.approx(found.control_gain.mean / found.gain.mean)


def test_control_that_answers_as_the_adapter_does_explains_everything() -> None:
    rng = np.random.default_rng(1)
    base, adapter = answers(rng, 0.2), answers(rng, 0.6)
    found = explained(base, adapter, adapter)
    assert (found.share, found.share_low, found.share_high) == (1, 1, 1)
    assert (found.beyond_control.mean, found.beyond_control.p) == (0, 1)
    nothing = explained(base, adapter, base)
    assert (nothing.share, nothing.share_low, nothing.share_high) == (0, 0, 0)


def test_what_is_beyond_the_control_is_tested_by_mcnemar() -> None:
    rng = np.random.default_rng(2)
    base, adapter, control = (answers(rng, c) for c in (0.2, 0.6, 0.45))
    found = explained(base, adapter, control).beyond_control
    better, worse = int(np.sum(adapter & ~control)), int(np.sum(~adapter & control))
    assert found.p == pytest.approx(binomtest(better, better + worse).pvalue)
    alone = paired_bootstrap(adapter.astype(float) - control)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_share_of_no_gain_is_not_reported() -> None:
    rng = np.random.default_rng(3)
    base = answers(rng, 0.4)
    found = explained(base, base[::-1], answers(rng, 0.6))
    assert np.isnan([found.share, found.share_low, found.share_high]).all()
    assert found.control_gain.low > 0


@pytest.mark.slow
def test_share_interval_covers_the_planted_share_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    covered = []
    for seed in range(150):
        base, adapter, control = (answers(rng, c, 200) for c in (0.2, 0.6, 0.4))
        found = explained(base, adapter, control, n_resamples=300, seed=seed)
        covered.append(found.share_low <= 0.5 <= found.share_high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_pooled_gain_weighs_tasks_not_examples() -> None:
    rng = np.random.default_rng(5)
    measured = cells(rng, {None: 0.2, "a": 0.6, "c": 0.4}, [50, 400])
    found = explained_rows(measured, "a", "c", ["t0", "t1"])
    gains = [row.gain.mean for row in found.rows]
    assert found.pooled.gain.mean == pytest.approx(np.mean(gains))
    assert found.pooled.gain.low < found.pooled.gain.mean < found.pooled.gain.high
    assert found.pooled.share_low <= 0.5 <= found.pooled.share_high
    widths = [row.gain.high - row.gain.low for row in (*found.rows, found.pooled)]
    assert widths[0] > widths[2] > widths[1]


def test_intervals_have_a_width_where_all_examples_agree_and_pooling_narrows_it() -> None:
    same = outcomes(np.zeros(24, np.bool_))
    measured = {(name, f"t{i}"): same for name in (None, "a", "c") for i in range(4)}
    found = explained_rows(measured, "a", "c", [f"t{i}" for i in range(4)])
    assert found.rows[0].gain.high == -found.rows[0].gain.low == pytest.approx(0.1066, abs=1e-4)
    assert found.pooled.gain.high == pytest.approx(found.rows[0].gain.high / 2)


def test_pooled_p_is_small_only_where_the_adapter_goes_beyond() -> None:
    rng = np.random.default_rng(6)
    measured = cells(rng, {None: 0.2, "a": 0.5, "same": 0.5, "worse": 0.35}, [80] * 4)
    tasks = [f"t{i}" for i in range(4)]
    assert explained_rows(measured, "a", "worse", tasks).pooled.beyond_control.p < 0.01
    assert explained_rows(measured, "a", "same", tasks).pooled.beyond_control.p > 0.05


def test_tasks_without_a_control_are_left_out_and_none_left_is_refused() -> None:
    measured = cells(np.random.default_rng(7), {None: 0.2, "a": 0.6, "c": 0.4}, [50, 50])
    del measured["c", "t0"]
    assert explained_rows(measured, "a", "c", ["t0", "t1"]).tasks == ("t1",)
    with pytest.raises(InputError, match="base model, a and c; measure all three"):
        explained_rows(measured, "a", "c", ["t0"])


def test_unequal_examples_are_refused() -> None:
    with pytest.raises(InputError, match="same examples"):
        explained(np.array([1, 0]), np.array([1, 0, 1]), np.array([1, 0]))


def test_ablations_are_compared_with_their_own_originals_as_one_family() -> None:
    rng = np.random.default_rng(8)
    measured = cells(rng, {"sent": 0.8, "wrong": 0.1, "short": 0.8, "flip": 0.3, "even": 0.6}, [200])
    originals = {"wrong": "sent", "short": "sent", "even": "flip", "long": "sent"}
    found = compare(measured, {name: (name, of) for name, of in originals.items()}, ["t0"])
    assert found.adapters == ("wrong", "short", "even", "long")
    assert found.verdict[:, 0].tolist() == ["side effect", "not shown", "gain", "not measured"]
    assert found.gain[0, 0] == pytest.approx(-0.7, abs=0.1)
    assert found.q_value[0, 0] == pytest.approx(found.p[0, 0] * 3 / 1, rel=1e-9)


def test_likelihood_can_be_the_score() -> None:
    measured = cells(np.random.default_rng(9), {None: 0.0, "a": 1.0, "c": 0.0}, [30])
    found = explained_rows(measured, "a", "c", ["t0"], score="likelihood")
    assert (found.pooled.gain.mean, found.pooled.share) == (-1, 0)
