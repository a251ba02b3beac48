"""Captions: their numbers are those of the findings, and they are right where nothing is shown."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from traitroute.profiling.analysis.agreement import Mantel
from traitroute.profiling.report.ablations import AblationFindings, control_sentence, effect_caption, find_ablations
from traitroute.profiling.report.classes import ClassFindings, find_classes, shift_caption
from traitroute.profiling.report.corpus import Corpus
from traitroute.profiling.report.forecast import forecast_caption
from traitroute.profiling.report.gains import call_sentence, find_gains, gain_caption
from traitroute.profiling.report.lengths import LengthFindings, find_lengths, habit_caption
from traitroute.profiling.report.retraining import find_retraining, retraining_section, retraining_sentence
from traitroute.profiling.report.section import Missing, counted, listed, p_value, percent, points, span
from traitroute.profiling.report.similarity import MantelRow, mantel_sentence
from traitroute.profiling.report.syntax import called_sentence, paper_sentence
from traitroute.profiling.report.traits import find_traits, loading_caption, scree_caption
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.ablation import Ablation

MakeStudy = Callable[..., Study]
BOTH = {("entailment", "toxicity"): 0.8, ("structured", "sentiment3"): 0.05}
SHUFFLED = Ablation(name="shuffled", of="sentiment3", change="shuffled")
WRONG = Ablation(name="wrong", of="sentiment3", change="mislabelled")
AGAIN = Ablation(name="again", of="sentiment3", change="retrained", seed=1)


def test_a_caption_counts_what_is_called(make_study: MakeStudy) -> None:
    found = find_gains(make_study(BOTH), n_resamples=200)
    caption = gain_caption(found, "strict")
    assert "1 of 20 cells is a gain and 1 side effect is shown at a false-discovery rate of 5%" in caption
    assert "The largest called: entailment on toxicity, +50.0 points (95% interval" in caption
    assert "none are on an adapter's own source task" in caption
    half = 100 * np.median(found.tests["strict"].high - found.tests["strict"].low) / 2
    assert f"±{half:.0f} points" in caption


def test_where_nothing_is_shown_a_caption_claims_nothing(make_study: MakeStudy) -> None:
    found = find_gains(make_study(), n_resamples=200)
    sentence = "None of 20 cells is shown to differ from the base model at a false-discovery rate of 5%."
    assert call_sentence(found.tests["strict"]) == sentence
    caption = gain_caption(found, "strict")
    assert "No cell is marked" in caption
    assert "largest" not in caption
    traits = find_traits(make_study(), n_bootstrap=20)
    assert "no trait is claimed" in scree_caption(traits)
    assert loading_caption(traits).startswith("No component is claimed")


def test_the_interval_of_cells_that_all_agree_has_a_width(make_study: MakeStudy) -> None:
    found = find_gains(make_study(), n_resamples=200)
    assert (found.tests["strict"].gain == 0).all()
    assert "the median 95% interval of a cell is ±4 points" in gain_caption(found, "strict")


def test_the_scree_caption_gives_share_null_and_p(make_study: MakeStudy) -> None:
    found = find_traits(make_study(BOTH), n_bootstrap=20)
    space = found.space
    caption = scree_caption(found)
    share, null = space.explained_variance_ratio_[0], space.null_[0]
    assert f"Component 1 holds {100 * share:.0f}% of the variance" in caption
    assert f"(95% of permuted gains: {100 * null:.0f}%), {p_value(space.p_values_[0])}" in caption


def test_the_habit_caption_counts_verdicts_elsewhere(make_study: MakeStudy) -> None:
    found = find_lengths(make_study(), n_resamples=50)
    assert isinstance(found, LengthFindings)
    verdicts = [h.verdict for h in found.elsewhere.values()]
    caption = habit_caption(found)
    assert "Of 12 cells off an adapter's own task" in caption
    for word in ("between", "source", "base", "undecided", "neither"):
        assert f"“{word}” in {verdicts.count(word)}" in caption


def test_moved_priors_are_counted_and_none_is_said(make_study: MakeStudy) -> None:
    study = make_study()
    predicted = study.outcomes["entailment", "toxicity"].predicted_label
    for always, start in ((None, "In none of 8 cells"), (1, "In 1 of 8 cells")):
        if always is not None:
            predicted[:] = always
        found = find_classes(study, Corpus(study), n_resamples=500)
        assert isinstance(found, ClassFindings)
        caption = shift_caption(found, ["toxicity", "sentiment3"])
        assert caption.startswith(start)
    excess = 100 * np.max(found.shifts["entailment", "toxicity"].adapter - found.shifts["entailment", "toxicity"].base)
    assert f"most in entailment on toxicity, where “toxic” is predicted {excess:.0f} points more" in caption


def test_a_control_that_explains_nothing_has_a_share_of_zero(make_study: MakeStudy) -> None:
    study = make_study({("sentiment3", "sentiment3"): 0.9}, ablations=(WRONG, SHUFFLED))
    found = find_ablations(study, n_resamples=200)
    assert isinstance(found, AblationFindings)
    assert not isinstance(found.controls, Missing)
    sentence = control_sentence(found.controls[0])
    assert "own task: 0% of the adapter's +60.0 points" in sentence
    assert "elsewhere: the adapter's +0.0 points are not shown to differ from zero" in sentence
    assert not isinstance(found.effects, Missing)
    caption = effect_caption(found.effects["strict"], "strict")
    assert "does better than the source as it was in 0 and worse in 1" in caption
    assert "The largest: wrong on sentiment3, -60.0 points" in caption


def test_ablations_are_compared_on_what_they_were_measured_on(make_study: MakeStudy) -> None:
    on_more = SHUFFLED.model_copy(update={"measured_on": ("toxicity",)})
    found = find_ablations(make_study(ablations=(WRONG, on_more)), n_resamples=200)
    assert isinstance(found, AblationFindings)
    assert not isinstance(found.effects, Missing)
    assert not isinstance(found.controls, Missing)
    assert "toxicity" in found.controls[0].all.tasks
    assert found.effects["strict"].verdict[0, found.tasks.index("toxicity")] == "not measured"


def test_a_second_training_is_set_beside_the_first(make_study: MakeStudy) -> None:
    chances = {("sentiment3", "sentiment3"): 0.9, ("sentiment3", "entailment"): 0.8, ("again", "sentiment3"): 0.85}
    study = make_study(chances, ablations=(WRONG, AGAIN))
    found = find_retraining(study, n_resamples=200)
    assert not isinstance(found, Missing)
    sentence = retraining_sentence(found)
    assert sentence.startswith("In 1 of 4 cells the two trainings are shown to differ")
    assert sentence.endswith("Of 2 gains or side effects of the first adapters 1 is called again, alike.")
    assert retraining_section(found).tables[0].rows[0]["of"] == "sentiment3"
    altered = find_ablations(study, n_resamples=200)
    assert isinstance(altered, AblationFindings)
    assert list(altered.variants) == ["wrong"]
    assert isinstance(find_retraining(make_study(ablations=(WRONG,))), Missing)


@pytest.mark.parametrize(
    ("r", "p", "verdict"),
    [
        (0.4, 0.3, "not shown to go with them"),
        (0.4, 0.01, "the more alike, the larger the gain"),
        (-0.4, 0.01, "the more alike, the smaller the gain"),
    ],
)
def test_similarity_is_claimed_only_below_the_level(r: float, p: float, verdict: str) -> None:
    row = MantelRow("style", "strict", Mantel(r, p, 0.0, -0.3, 0.3, 20, 24))
    assert mantel_sentence(row).endswith(f"{p_value(p)}: {verdict}.")


def test_the_papers_relation_is_said_to_lead_only_where_it_does() -> None:
    first = SimpleNamespace(relation="oprd", q=0.01, beyond=0.2)
    other = SimpleNamespace(relation="nsubj", q=0.4, beyond=0.0)
    relations = {"a": [first, other], "b": [other, first], "c": [other]}
    sentence = paper_sentence(relations)  # pyright: ignore[reportArgumentType]
    assert "highest ratio for 1 of 2 adapters" in sentence
    assert "called higher than on other prompts of the same tasks for 2" in sentence
    assert "too few" in paper_sentence({"c": [other]})  # pyright: ignore[reportArgumentType]
    called = called_sentence({"c": [other]})  # pyright: ignore[reportArgumentType]
    assert called.startswith("None of 1 relation goes")


def test_a_forecast_that_rivals_reach_is_not_called_better() -> None:
    cells = np.array([[0.1, 0.3, np.nan]])
    methods = [
        SimpleNamespace(name="all", rho=0.6, rho_low=0.4, rho_high=0.8, mae=7.0),
        SimpleNamespace(name="mean row", rho=0.3, rho_low=0.1, rho_high=0.5, mae=9.0),
        SimpleNamespace(name="style", rho=0.0, rho_low=-0.1, rho_high=0.1, mae=9.0),
    ]
    found = SimpleNamespace(
        measured=cells, predicted=cells, low=np.array([[0.0, 0.4, 0]]), high=cells + 0.2, level=0.9, methods=methods
    )
    caption = forecast_caption(found)  # pyright: ignore[reportArgumentType]
    assert caption.startswith("50% of 2 measured gains")
    assert "overlaps with that of mean row, so it is not shown to be better" in caption


def test_numbers_as_words() -> None:
    assert [counted(n, "cell") for n in (0, 1, 2)] == ["no cells", "1 cell", "2 cells"]
    assert counted(2, "side effect") == "2 side effects"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a"]) == "a"
    assert listed(list("abcdefg"), 2) == "a, b and 5 more"
    assert (p_value(0.0001), p_value(0.0123), p_value(0.5)) == ("p < 0.001", "p = 0.012", "p = 0.50")
    assert (percent(0.431), percent(float("nan"))) == ("43%", "unknown")
    assert (points(-0.0), points(0.125)) == ("+0.0 points", "+12.5 points")
    assert (span([60, 60]), span([24, 60])) == ("60", "24 to 60")
