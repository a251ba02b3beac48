"""A relation that an adapter helps with stands out; chance does not."""

import numpy as np
import pytest
from traitroute.adapters import InputError
from traitroute.profiling.analysis.linguistics import Syntax
from traitroute.profiling.analysis.relations import RelationRatio, relation_success


def texts(holds: dict[str, np.ndarray], *, tokens: np.ndarray | None = None) -> list[Syntax]:
    """Texts that all hold ROOT and the relations of `holds` where it says so; padded to `tokens`."""
    n = len(next(iter(holds.values())))
    parsed = []
    for i in range(n):
        tags = ["ROOT", *(name for name, where in holds.items() if where[i])]
        tags += ["ROOT"] * (0 if tokens is None else int(tokens[i]) - len(tags))
        parsed.append(Syntax(tuple(tags), ("X",) * len(tags), 1, 1, 1.0, cut=False))
    return parsed


def by_name(rows: list[RelationRatio]) -> dict[str, RelationRatio]:
    return {row.relation: row for row in rows}


def test_ratio_is_that_of_smoothed_successes() -> None:
    holds = np.arange(40) < 20
    adapter, base = np.arange(40) < 12, np.arange(40) < 3
    row = by_name(relation_success(texts({"oprd": holds}), adapter, base))["oprd"]
    assert (row.texts, row.adapter, row.base) == (20, 12 / 20, 3 / 20)
    assert row.ratio == pytest.approx(12.5 / 3.5)
    assert row.low < row.ratio < row.high


def test_base_model_without_success_leaves_a_finite_ratio() -> None:
    rows = relation_success(texts({"oprd": np.ones(20)}), np.ones(20), np.zeros(20))
    assert all(np.isfinite([row.ratio, row.low, row.high, row.relative]).all() for row in rows)
    assert rows[0].ratio == pytest.approx(20.5 / 0.5)


def test_interval_has_a_width_where_neither_is_right() -> None:
    row = relation_success(texts({"oprd": np.ones(24)}), np.zeros(24), np.zeros(24))[0]
    assert row.low < 0.5 < row.ratio == 1 < 2 < row.high


def test_planted_relation_is_first_and_significant() -> None:
    random = np.random.default_rng(0)
    holds = {f"r{j}": random.random(300) < 0.3 for j in range(10)}
    base = random.random(300) < 0.3
    adapter = np.where(holds["r4"], random.random(300) < 0.9, base)
    rows = relation_success(texts(holds), adapter, base)
    assert rows[0].relation == "r4"
    assert rows[0].q < 0.05
    assert rows[0].relative > 1.3


def test_an_even_gain_marks_no_relation_though_every_ratio_is_high() -> None:
    found = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        holds = {f"r{j}": random.random(200) < 0.3 for j in range(8)}
        adapter, base = random.random(200) < 0.6, random.random(200) < 0.2
        rows = relation_success(texts(holds), adapter, base, n_permutations=499, n_resamples=10)
        assert min(row.ratio for row in rows) > 1.2
        found += any(row.q < 0.05 for row in rows)
    assert found <= 4  # a twentieth expected


def test_length_bands_take_away_what_length_explains() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(5, 45, size=600)
    long = tokens > 25
    holds = {"oprd": random.random(600) < np.where(long, 0.8, 0.1)}
    base = random.random(600) < 0.3
    adapter = np.where(long, random.random(600) < 0.8, base)
    parsed = texts(holds, tokens=tokens)
    plain = by_name(relation_success(parsed, adapter, base, n_permutations=999))
    banded = by_name(relation_success(parsed, adapter, base, length_bands=10, n_permutations=999))
    assert plain["oprd"].p < 0.01
    assert banded["oprd"].p > 0.05


def test_rare_relations_are_left_out_and_universal_ones_are_no_test() -> None:
    holds = {"rare": np.arange(50) < 9, "seen": np.arange(50) < 10}
    rows = by_name(relation_success(texts(holds), np.ones(50), np.arange(50) % 2))
    assert set(rows) == {"seen", "ROOT"}
    assert (rows["ROOT"].p, rows["ROOT"].q, rows["ROOT"].relative) == (1.0, 1.0, 1.0)
    assert relation_success(texts(holds), np.ones(50), np.ones(50), min_texts=51) == []


def test_rows_are_the_same_for_the_same_seed() -> None:
    holds = {"oprd": np.arange(30) < 12}
    arguments = texts(holds), np.arange(30) % 2, np.arange(30) % 3 == 0
    assert relation_success(*arguments, seed=1) == relation_success(*arguments, seed=1)


def test_outcomes_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"20 parsed texts.*\(19,\)"):
        relation_success(texts({"oprd": np.ones(20)}), np.ones(19), np.ones(20))
