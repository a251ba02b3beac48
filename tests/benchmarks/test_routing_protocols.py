"""The committed outcomes and the protocols over them: nothing held out is fitted on."""

from pathlib import Path

import numpy as np
import pytest
from routing.baselines import BASELINES
from routing.protocols import PROTOCOLS, folds
from routing.table import OutcomeTable, chosen, load
from routing.trials import figures, run

FILE = Path(__file__).parents[2] / "benchmarks" / "routing/outcomes.safetensors"


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    return load(FILE)


def test_the_table_is_as_large_as_the_documents_say(table: OutcomeTable) -> None:
    assert len(table.adapters) == 10
    main = table.kind == "main"
    assert len(np.unique(table.task[main])) == 24
    assert np.bincount(table.task[main]).min() == 100


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_data_row_is_fitted_on_and_scored(table: OutcomeTable, protocol: str) -> None:
    for fold in folds(table, protocol):
        assert not np.isin(table.row[fold.test], table.row[fold.fit]).any()


def test_a_data_set_left_out_is_left_out_whole(table: OutcomeTable) -> None:
    for protocol in ("unseen_loto", "unseen_sources_only"):
        for fold in folds(table, protocol):
            assert not np.isin(table.dataset[fold.test], table.dataset[fold.fit]).any()


def test_always_base_recovers_no_gain_and_harms_nothing(table: OutcomeTable) -> None:
    only = {n: BASELINES[n] for n in ("base", "best single adapter")}
    scores = table.strict.astype(np.float64)
    found = figures(table, run(table, scores, "unseen_loto", only))
    assert found["base"]["gain_recovered"] == pytest.approx(0.0)
    assert found["base"]["tasks_below_base"] == 0
    assert found["(oracle per task)"]["pct_of_naive_best"] == pytest.approx(100.0)


def test_table_survives_being_written(table: OutcomeTable, tmp_path: Path) -> None:
    table.save(tmp_path / "again.safetensors")
    again = load(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again.strict, table.strict)
    np.testing.assert_array_equal(again.marks[5].edges.places, table.marks[5].edges.places)


def test_what_is_no_table_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match=r"outcomes\.py --data"):
        load(tmp_path / "x.safetensors")
    with pytest.raises(SystemExit, match="there are: base"):
        chosen("bass", {"base": 1}, "router")
