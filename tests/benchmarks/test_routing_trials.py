"""Trials on a made-up table: baselines find what is planted, and figures are what they must be."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from routing.baselines import BASELINES, SINGLES, STACK, blend
from routing.ours import OURS
from routing.table import OutcomeTable, chosen, load
from routing.trials import MEAN, SCORES, Found, answers, complete_table, fold_list, over_protocols, run, scores_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BY_MEANING = [n for n in BASELINES if n not in ("base", "random", "best single adapter")]


@pytest.fixture(scope="module")
def found(made_up: OutcomeTable) -> dict[str, Found]:
    return {p: Found.of(run(made_up, "strict", p, BASELINES)) for p in ("new_rows", "group_left_out")}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["new_rows", "group_left_out"])
@pytest.mark.parametrize("name", BY_MEANING)
def test_what_is_planted_in_the_meaning_is_found(found: dict[str, Found], protocol: str, name: str) -> None:
    assert found[protocol].figures[name]["pct_of_best"] > 92


@pytest.mark.slow
def test_the_best_single_adapter_is_the_general_one(made_up: OutcomeTable, found: dict[str, Found]) -> None:
    choices = run(made_up, "strict", "new_rows", {"single": BASELINES["best single adapter"]}).choices["single"]
    assert set(choices.tolist()) == {len(made_up.adapters)}
    assert found["new_rows"].figures["best single adapter"]["pct_of_best"] == pytest.approx(56, abs=6)


@pytest.mark.slow
def test_always_base_gains_nothing_and_harms_nothing(found: dict[str, Found]) -> None:
    for of in found.values():
        assert of.figures["base"]["gain_recovered"] == pytest.approx(0.0)
        assert of.figures["base"]["groups_below_base"] == 0
        assert of.figures["base"]["base_share"] == 1.0


@pytest.mark.slow
def test_no_router_is_above_the_oracles(found: dict[str, Found]) -> None:
    for of in found.values():
        f = of.figures
        assert f["(oracle per data set)"]["pct_of_naive_best"] == pytest.approx(100.0)
        assert max(f[name]["pct_of_best"] for name in BASELINES) <= f["(oracle per request)"]["pct_of_best"]
        best = f["(best baseline in hindsight)"]
        assert best["pct_of_best"] == max(f[name]["pct_of_best"] for name in BASELINES)
        assert f[best["name"]]["pct_of_best"] == best["pct_of_best"]


@pytest.mark.slow
def test_base_is_open_to_baselines(made_up: OutcomeTable) -> None:
    # Where base is right everywhere, and adapters half as often as they were, nothing else is worth choosing.
    strict = made_up.strict / 2
    strict[:, 0] = 1.0
    trial = run(replace(made_up, strict=strict), "strict", "new_rows", BASELINES)
    for name in BASELINES:
        share = (trial.choices[name] == 0).mean()
        assert (share == 0.0) if name == "random" else (share > 0.9), name


@pytest.mark.parametrize("protocol", ["new_adapter_no_rows", "no_training_rows", "new_adapter_tenth"])
def test_baselines_do_without_training_rows(made_up: OutcomeTable, protocol: str) -> None:
    fold = fold_list(made_up, protocol)[1]
    for name, choice in answers(made_up, fold, BASELINES, ["strict"]).choices["strict"].items():
        assert choice.shape == fold.test.shape, name
        assert 0 <= choice.min() <= choice.max() <= len(made_up.adapters), name


def test_a_newcomer_is_sent_the_requests_it_answers(made_up: OutcomeTable) -> None:
    fold = fold_list(made_up, "new_adapter")[0]
    right = made_up.strict[fold.test, 1].mean()
    for name in ("nearest examples", "sentence ridge", "task mixture (LORAUTER)", STACK):
        choice = answers(made_up, fold, {name: BASELINES[name]}, ["strict"]).choices["strict"][name]
        assert (choice == 1).mean() == pytest.approx(right, abs=0.15), name


def test_a_score_is_answered_the_same_alone_and_beside_others(made_up: OutcomeTable) -> None:
    fold = fold_list(made_up, "group_left_out")[0]
    routers = {name: SINGLES[name] for name in ("nearest examples", "sentence ridge", "semantic-router")}
    together, alone = (answers(made_up, fold, routers, scores) for scores in (SCORES, ["lenient"]))
    for name in routers:
        np.testing.assert_array_equal(together.choices["lenient"][name], alone.choices["lenient"][name])


def test_a_blend_takes_what_is_right_and_levels_what_is_shifted() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=800)
    weights, level = blend(np.stack([target + 5, rng.normal(size=target.shape), -target]), target)
    assert weights == pytest.approx([1, 0, 0], abs=0.05)
    assert level == pytest.approx(-5, abs=0.2)


@pytest.mark.slow
def test_figures_are_json_by_router(made_up: OutcomeTable, found: dict[str, Found]) -> None:
    figures = json.loads(json.dumps(found["new_rows"].figures))
    least = {"pct_of_best", "pct_of_best_ci", "gain_recovered", "gain_recovered_ci", "groups_below_base", "regret"}
    assert all(least <= set(f) for f in figures.values())
    assert all("base_share" in figures[name] for name in BASELINES)
    hindsight = {n for n in figures if n.startswith("(")}
    assert set(figures) - hindsight == set(BASELINES)
    assert {"(best baseline in hindsight)", "(best single adapter in hindsight)"} <= hindsight


@pytest.mark.slow
def test_over_protocols_ours_is_compared_with_each(made_up: OutcomeTable) -> None:
    routers = {"traitroute": BASELINES["sentence ridge"], "random": BASELINES["random"]}
    of = [Found.of(run(made_up, "strict", p, routers)) for p in ("new_rows", "group_left_out")]
    means = over_protocols(of)
    assert means["random"]["p_traitroute_ahead"] < 0.001
    expected = np.mean([f.figures["traitroute"]["pct_of_best"] for f in of])
    assert means["traitroute"]["pct_of_best"] == pytest.approx(expected)


def test_a_mixture_is_compared_on_the_requests_it_answered(made_up: OutcomeTable) -> None:
    arrow = made_up.arrow.copy()
    arrow[made_up.task == 0] = [1, 0]
    arrow[np.array(made_up.datasets)[made_up.task] == "set2a"] = [1, 0]
    table = replace(made_up, arrow=arrow)
    for score, expected in (("strict", 1.0), ("lenient", 0.0)):
        found = Found.of(run(table, score, "new_rows", {STACK: SINGLES["base"]})).figures
        (name,) = [n for n in found if n.startswith("Arrow")]
        assert found[name]["mean_score"] == expected
        assert found[name]["datasets"] == found[f"({STACK}, {name.split(', ')[1]})"]["datasets"] == 1
    assert not [n for n in Found.of(run(table, "metric", "new_rows", {})).figures if "Arrow" in n]


@pytest.mark.slow
def test_our_router_is_run_as_it_is(made_up: OutcomeTable) -> None:
    found = Found.of(run(made_up, "strict", "sources_only", OURS))
    assert found.figures["traitroute"]["groups"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("confirm", [False, True])
def test_groups_to_confirm_on_are_looked_at_when_asked_for_only(
    made_up: OutcomeTable, tmp_path: Path, confirm: bool
) -> None:
    made_up.save(tmp_path / "table.safetensors")
    done = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "routing.py"), "--outcomes", "table.safetensors", "--json", "out.json"),
            *("--only", "base,random", "--protocols", "agent,group_left_out", "--processes", "1"),
            *(["--confirm"] if confirm else []),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    written = json.loads((tmp_path / "out.json").read_text())
    prefix = "confirm_" if confirm else ""
    assert set(written) == {f"{prefix}agent", f"{prefix}group_left_out", MEAN}
    assert all(set(of) == set(SCORES) for of in written.values())
    assert ("decisions.md" in done.stdout) == confirm


def test_cells_not_measured_are_left_out(made_up: OutcomeTable, tmp_path: Path) -> None:
    partial = {score: getattr(made_up, score).copy() for score in SCORES}
    for values in partial.values():
        values[:, 2] = np.nan
        values[made_up.dataset == "set7a"] = np.nan
    replace(made_up, **partial).save(tmp_path / "partial.safetensors")
    table = complete_table(tmp_path / "partial.safetensors")
    assert table.adapters == ("adapter0", "adapter2", "general")
    assert "set7a" not in table.datasets
    assert not any(np.isnan(scores_of(table, score)).any() for score in SCORES)


def test_a_table_of_which_nothing_is_measured_is_refused_with_the_cure(made_up: OutcomeTable, tmp_path: Path) -> None:
    nothing = np.full_like(made_up.strict, np.nan)
    replace(made_up, strict=nothing, lenient=nothing, metric=nothing).save(tmp_path / "empty.safetensors")
    with pytest.raises(SystemExit, match=r"no request was measured[\s\S]*outcomes\.py"):
        complete_table(tmp_path / "empty.safetensors")


def test_what_is_no_table_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match=r"outcomes\.py --data"):
        load(tmp_path / "x.safetensors")
    with pytest.raises(SystemExit, match="there are: base"):
        chosen("bass", {"base": 1}, "router")
