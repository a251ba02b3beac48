"""Findings of a study whose effects are planted, and what is said where they cannot be made."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest
from traitroute.adapters import SuiteError
from traitroute.profiling.analysis.linguistics import RelationRatio
from traitroute.profiling.report.ablations import AblationFindings, find_ablations
from traitroute.profiling.report.classes import ClassFindings, find_classes
from traitroute.profiling.report.corpus import Corpus
from traitroute.profiling.report.gains import asymmetry_sentence, find_gains
from traitroute.profiling.report.lengths import LengthFindings, find_lengths
from traitroute.profiling.report.section import Missing, attempt
from traitroute.profiling.report.similarity import SimilarityFindings, find_similarity
from traitroute.profiling.report.syntax import find_syntax
from traitroute.profiling.report.traits import find_traits
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.ablation import Ablation
from traitroute.profiling.tasks.task import Task

MakeStudy = Callable[..., Study]
GAIN = {("entailment", "toxicity"): 0.8}
SHUFFLED = Ablation(name="shuffled", of="sentiment3", change="shuffled")
WRONG = Ablation(name="wrong", of="sentiment3", change="mislabelled")


class HashEncoder:
    """A stand-in for a sentence encoder: vectors from the letters alone."""

    def encode(self, sentences: list[str], **options: object) -> np.ndarray:
        return np.array([[text.count(c) for c in "etaoinshr"] for text in sentences], float)


def test_the_planted_gain_alone_is_called(make_study: MakeStudy) -> None:
    study = make_study(GAIN)
    found = find_gains(study, n_resamples=200)
    strict = found.tests["strict"]
    assert strict.counts == {"gain": 1, "side effect": 0, "not shown": 19, "not measured": 0}
    assert strict.verdict[1, 4] == "gain"
    assert strict.gain[1, 4] == pytest.approx(0.5)
    adapter, base = (study.outcomes[name, "toxicity"].strict for name in ("entailment", None))
    better, worse = int(np.sum(adapter & ~base)), int(np.sum(~adapter & base))
    assert strict.p[1, 4] == pytest.approx(binomtest(better, better + worse).pvalue)


def test_shares_have_the_base_model_first_and_hold_in_their_bounds(make_study: MakeStudy) -> None:
    shares = find_gains(make_study(GAIN), n_resamples=200).shares["strict"]
    assert shares.share.shape == (5, 5)
    assert shares.share[0] == pytest.approx(np.full(5, 0.3))
    assert shares.share[2, 4] == pytest.approx(0.8)
    assert np.all((shares.low <= shares.share) & (shares.share <= shares.high))


def test_a_transfer_in_one_direction_alone_is_called_asymmetric(make_study: MakeStudy) -> None:
    found = find_gains(make_study({("entailment", "structured"): 0.8}), n_resamples=999)
    pairs = {(pair.first, pair.second): pair for pair in found.asymmetries}
    assert len(pairs) == 6
    assert [names for names, pair in pairs.items() if pair.q <= 0.05] == [("entailment", "structured")]
    planted = pairs["entailment", "structured"]
    assert (planted.there, planted.back, planted.difference) == (pytest.approx(0.5), 0, pytest.approx(0.5))
    assert 0.3 < planted.low < 0.5 < planted.high < 0.7
    assert "In 1 of 6 pairs of sources" in asymmetry_sentence(found.asymmetries)
    assert "entailment and structured: +50.0 points there, +0.0 points back" in asymmetry_sentence(found.asymmetries)


def test_alike_in_both_directions_is_no_asymmetry(make_study: MakeStudy) -> None:
    alike = {("entailment", "structured"): 0.8, ("structured", "entailment"): 0.8}
    found = find_gains(make_study(alike), n_resamples=999)
    assert asymmetry_sentence(found.asymmetries).startswith("In none of 6 pairs")


def test_equal_gains_support_no_trait(make_study: MakeStudy) -> None:
    found = find_traits(make_study(), n_bootstrap=20)
    assert found.claimed == 0
    assert not found.projections.any()


def test_a_users_label_comes_before_the_made_name(make_study: MakeStudy) -> None:
    found = find_traits(make_study(GAIN, labels={"1": "calm"}), n_bootstrap=20)
    assert found.title(0) == "calm"
    assert found.names[0].name != "calm"


def test_ablations_are_placed_by_the_source_tasks_they_were_measured_on(make_study: MakeStudy) -> None:
    alike = {("wrong", t): c for (_, t), c in GAIN.items()}
    found = find_traits(make_study(GAIN | alike, ablations=(WRONG,)), n_bootstrap=20)
    assert found.ablations == ("wrong",)
    assert np.isfinite(found.ablation_projections).all()


def test_habits_speak_of_every_adapter_on_every_source_task(make_study: MakeStudy) -> None:
    study = make_study()
    found = find_lengths(study, n_resamples=50)
    assert isinstance(found, LengthFindings)
    assert len(found.habits) == 16
    assert len(found.elsewhere) == 12
    gold = study.outcomes[None, "word_problems"].target_tokens
    assert found.sources["word_problems"].mean == pytest.approx(gold.mean())


def test_predicted_classes_are_set_against_the_rows_labels(make_study: MakeStudy) -> None:
    study = make_study(GAIN)
    found = find_classes(study, Corpus(study), n_resamples=200)
    assert isinstance(found, ClassFindings)
    assert found.tasks == ("sentiment3", "entailment", "toxicity")
    cell = found.confusions["entailment", "toxicity"]
    assert np.trace(cell.counts[:, :-1]) == 48
    assert found.sources["sentiment3"].counts.sum() == 40


def test_moved_or_changed_rows_are_refused(make_study: MakeStudy, tasks: dict[str, Task]) -> None:
    study = make_study()
    with pytest.raises(SuiteError, match="test rows of toxicity are not those"):
        find_classes(study, Corpus(study, digests={"toxicity": "0" * 64}))
    # Made anew: a copy would bring the rows along that were read already.
    away = Task.model_validate(tasks["toxicity"].model_dump() | {"rows": {"folder": "nowhere"}})
    moved = make_study(changed={"toxicity": away})
    found = attempt(lambda: find_classes(moved, Corpus(moved)))
    assert isinstance(found, Missing)
    assert "nowhere has no task folder 'toxicity'" in found.reason


def test_a_parser_that_is_absent_costs_style_alone(make_study: MakeStudy) -> None:
    study = make_study(GAIN)
    corpus = Corpus(study, parser_name="no_such_model", encoder_given=HashEncoder(), texts=10)
    found = find_similarity(study, corpus)
    assert isinstance(found, SimilarityFindings)
    assert isinstance(found.style, Missing)
    assert "no_such_model" in found.style.reason
    assert [row.similarity for row in found.tests] == ["semantic"] * 3
    assert isinstance(attempt(lambda: find_syntax(study, corpus)), Missing)


def test_similarity_cannot_be_tested_against_gains_that_are_all_alike(make_study: MakeStudy) -> None:
    study = make_study()
    corpus = Corpus(study, parser_name="no_such_model", encoder_given=HashEncoder(), texts=10)
    found = find_similarity(study, corpus)
    assert isinstance(found, SimilarityFindings)
    assert isinstance(found.tests[0].test, Missing)


def test_altered_sources_are_set_against_their_originals(make_study: MakeStudy) -> None:
    study = make_study({("sentiment3", "sentiment3"): 0.9}, ablations=(WRONG, SHUFFLED))
    found = find_ablations(study, n_resamples=200)
    assert isinstance(found, AblationFindings)
    assert not isinstance(found.effects, Missing)
    strict = found.effects["strict"]
    assert strict.tasks == ("sentiment3", "entailment", "word_problems", "structured")
    assert strict.verdict[0].tolist() == ["side effect", "not shown", "not shown", "not shown"]
    assert not isinstance(found.controls, Missing)
    (control,) = found.controls
    assert control.own is not None
    assert (control.own.share, control.own.gain.mean) == (0, pytest.approx(0.6))


def test_controls_alone_leave_the_effects_out(make_study: MakeStudy) -> None:
    found = find_ablations(make_study(ablations=(SHUFFLED,)), n_resamples=50)
    assert isinstance(found, AblationFindings)
    assert isinstance(found.effects, Missing)
    assert isinstance(find_ablations(make_study()), Missing)


@pytest.fixture(scope="session")
def parser() -> str:
    """An installed spaCy model."""
    spacy = pytest.importorskip("spacy")
    from traitroute.profiling.analysis.linguistics import PARSERS

    name = next((n for n in PARSERS if spacy.util.is_package(n)), None)
    return name or pytest.skip("no English spaCy model is installed")


@pytest.mark.slow
def test_relations_are_of_the_tasks_that_are_not_the_adapters_own(make_study: MakeStudy, parser: str) -> None:
    study = make_study(GAIN)
    corpus = Corpus(study, parser_name=parser, texts=10)
    found = find_syntax(study, corpus, n_resamples=50, n_permutations=99)
    assert (found.score, found.base_share) == ("strict", pytest.approx(0.3))
    assert not isinstance(found.relations, Missing)
    assert max(r.texts for rows in found.relations.values() for r in rows) <= 4 * 60
    rows: list[RelationRatio] = found.relations["entailment"]
    assert rows[0].ratio > 1
    assert all(r.ratio == 1 for r in found.relations["structured"])
    assert isinstance(found.writing, Missing)


@pytest.mark.slow
def test_without_any_success_of_the_base_model_there_is_no_ratio(make_study: MakeStudy, parser: str) -> None:
    nothing = {(None, task): 0.0 for task in make_study().tasks}
    study = make_study(nothing, keep_outputs=True)
    found = find_syntax(study, Corpus(study, parser_name=parser, texts=10), n_permutations=9)
    assert isinstance(found.relations, Missing)
    assert not isinstance(found.writing, Missing)
    assert found.writing["structured"].adapter == pytest.approx(found.writing["structured"].base)
