"""The texts that latency is measured on: of the lengths that are claimed, and not those fitted on."""

import json
from pathlib import Path

import numpy as np
import pytest
from latency import texts as latency_texts


def test_lengths_spread_log_uniformly() -> None:
    rows = {"sums": ["What is 2 + 3?"], "essays": ["word " * 1_000]}
    texts = latency_texts.request_texts(rows, 3_000, np.random.default_rng(0))
    lengths = np.array([len(t) for t in texts])
    assert 50 <= lengths.min() < 52 and 3_900 < lengths.max() <= 4_000
    assert np.mean(lengths < np.sqrt(50 * 4_000)) == pytest.approx(0.5, abs=0.03)


def test_rows_fitted_on_are_not_timed(tmp_path: Path) -> None:
    (tmp_path / "sums").mkdir()
    lines = [json.dumps({"input": f"{i} + {i}"}) for i in range(30)]
    (tmp_path / "sums" / "test.jsonl").write_text("\n".join(lines) + "\n")
    rows = latency_texts.read_rows(tmp_path, np.random.default_rng(0))
    fitted, timed = latency_texts.split_rows(rows, 10)
    assert (len(fitted["sums"]), len(timed["sums"])) == (10, 20)
    assert not set(fitted["sums"]) & set(timed["sums"])


def test_a_folder_without_tasks_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no <task>/test"):
        latency_texts.read_rows(tmp_path, np.random.default_rng(0))
