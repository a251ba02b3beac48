"""Evidence from what adapters were trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from traitroute.router import FitRequests, RequestFeatures, Router, TrainingRows, fit_profile
from traitroute.router.training_profiles import TrainingProfiles, _alike, in_doubt, learnt

PROMPTS = [f"sort the words: w{i} v{i}" for i in range(20)]
OTHERS = [f"is this review good or bad? I like it {i}" for i in range(20)]


@pytest.fixture
def features() -> RequestFeatures:
    return RequestFeatures.fit([*PROMPTS, *OTHERS])


def evidence_of(features: RequestFeatures, training: TrainingProfiles, text: str) -> NDArray[np.float64]:
    return training.row(*features.split(features.row(text)), text)


@pytest.fixture
def training(features: RequestFeatures) -> TrainingProfiles:
    sorting = TrainingRows.read(PROMPTS, ["w1 w2"] * 20)
    reviews = TrainingRows.read(OTHERS, ["good", "bad"] * 10)
    return TrainingProfiles.of([sorting, reviews, None], features)


def test_a_request_like_the_training_prompts_matches_them(
    features: RequestFeatures, training: TrainingProfiles
) -> None:
    text = "sort the words: w77 v77"
    match = evidence_of(features, training, text)[:, 0]
    assert match[0] > 0.25 > 0.1 > match[1]


def test_an_adapter_of_many_kinds_is_as_like_each_as_one_of_that_kind_alone(features: RequestFeatures) -> None:
    answers = ["w1 w2"] * 20
    sorting, both = TrainingRows.read(PROMPTS, answers), TrainingRows.read([*PROMPTS, *OTHERS], [*answers, *answers])
    training = TrainingProfiles.of([sorting, both], features)
    assert training.places[0] == 1 < training.places[1]
    match = evidence_of(features, training, "sort the words: w77 v77")[:, 0]
    assert match[1] > 0.9 * match[0]


def test_in_a_fleet_of_thousands_an_adapter_has_one_place(features: RequestFeatures) -> None:
    both = [TrainingRows.read([*PROMPTS, *OTHERS], ["a"] * 40)]
    found = [TrainingProfiles.of(both, features, room=room).places.tolist() for room in (2_000, 0)]
    assert found[0] > found[1] == [1]


def test_prompts_that_are_all_the_same_have_one_place(features: RequestFeatures) -> None:
    same = [TrainingRows.read(texts, ["a"] * len(texts)) for texts in ([PROMPTS[0]] * 9, [""] * 3, [PROMPTS[0], ""])]
    assert TrainingProfiles.of(same, features).places.tolist()[0] == 1


def test_prompts_whose_meaning_differs_by_rounding_are_the_same_prompt() -> None:
    angles = 2 * np.pi * np.arange(3) / 3
    meaning = np.repeat(np.stack([np.cos(angles), np.sin(angles)], axis=1), 9, axis=0)
    meaning[::2] = np.nextafter(meaning[::2], 2)
    places = _alike(meaning, 8).reshape(3, 9)
    assert sorted(places[:, 0]) == [0, 1, 2]
    assert np.all(places == places[:, :1])


def test_a_prompt_of_words_that_are_unknown_matches_less(features: RequestFeatures, training: TrainingProfiles) -> None:
    known, strange = "sort the words: w3 v3", "sort qzu xev piv wox lun mib"
    found = [evidence_of(features, training, text)[0, 0] for text in (known, strange)]
    assert found[1] < 0.6 * found[0]


def test_answers_named_in_the_request_speak_for_the_adapter_that_gives_them(
    features: RequestFeatures, training: TrainingProfiles
) -> None:
    text = "the film: good or bad?"
    answers = evidence_of(features, training, text)[:, 1]
    assert answers[1] > answers[0]


def test_an_adapter_of_unknown_training_has_no_evidence(features: RequestFeatures, training: TrainingProfiles) -> None:
    for text in (PROMPTS[0], OTHERS[0], ""):
        np.testing.assert_array_equal(evidence_of(features, training, text)[2], [0.0, 0.0])


def test_an_adapter_of_which_only_one_side_is_known_has_evidence_of_that_side(features: RequestFeatures) -> None:
    known = TrainingRows.read(OTHERS, ["good", "bad"] * 10)
    prompts = TrainingRows(known.prompts, [])
    answers = TrainingRows([], known.answers)
    text = OTHERS[3]
    found = evidence_of(features, TrainingProfiles.of([known, prompts, answers], features), text)
    np.testing.assert_allclose(found[1], [found[0, 0], 0.0])
    np.testing.assert_allclose(found[2], [0.0, found[0, 1]])


def test_joined_profiles_are_those_read_together(features: RequestFeatures, training: TrainingProfiles) -> None:
    joined = training.take([0]).join(training.take([1, 2]))
    for text in (PROMPTS[0], OTHERS[0]):
        of_joined, of_all = (evidence_of(features, each, text) for each in (joined, training))
        np.testing.assert_array_equal(of_joined, of_all)


def test_one_request_has_the_evidence_of_many(features: RequestFeatures, training: TrainingProfiles) -> None:
    texts = [*PROMPTS[:3], *OTHERS[:3], "", "xqzt"]
    found = training.evidence(*features.split(features.transform(texts)), texts)
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_allclose(row, evidence_of(features, training, text), rtol=1e-5, atol=1e-7)


def test_reading_evidence_changes_no_profile(features: RequestFeatures, training: TrainingProfiles) -> None:
    words, shares = training.words.copy(), training.shares.copy()
    evidence_of(features, training, OTHERS[0])
    np.testing.assert_array_equal(training.words, words)
    np.testing.assert_array_equal(training.shares, shares)


def test_what_was_gained_elsewhere_does_not_make_up_for_losses_where_trained() -> None:
    match = np.array([[0.95, 0.9, 0.3], [0.1, 0.8, 0.2], [0.0, 0.0, 0.0]])
    gains = np.array([[-0.1, 0.0, -0.2], [0.5, -0.3, -0.1], [0.5, -0.5, 0.0]])
    assert learnt(match, gains).tolist() == [False, True, True]


def test_training_tells_the_less_the_more_was_measured_on_such_requests() -> None:
    told = in_doubt(np.array([0.0, 0.1, 0.2, 0.4, 1.0]))
    assert told.tolist() == pytest.approx([0.0, 0.0625, 0.25, 1.0, 1.0])


def test_the_change_that_is_named_changes_the_choice(router: Router, topic_texts: Callable[..., Any]) -> None:
    for topic in ("cooking", "space", "law"):
        for text in topic_texts(topic, 5, seed=4):
            decision = router.route(text, explain=True)
            change = decision.change
            assert change is not None
            assert change.adapter != decision.adapter
            shift = (change.needed - change.demand) * 1.001
            assert _shifted(router, text, change.part, shift) == change.adapter
            assert _shifted(router, text, change.part, shift * 0.99) == decision.adapter


def _shifted(router: Router, text: str, part: str, shift: float) -> str | None:
    """What would be chosen with one part of the demand moved, by the arithmetic of the docstrings."""
    profile = router.profile
    predicted = profile.predict(text)
    supply = np.ones(len(profile.adapters))
    if part != "mean":
        supply = profile.trait_scores[:, int(part.split()[1]) - 1]
    moved = predicted.gains + shift * supply
    best = int(moved.argmax())
    return profile.adapters[best] if moved[best] - predicted.margin > 0 else None


@pytest.mark.slow
def test_a_match_with_training_prompts_finds_the_adapter_of_a_task_left_out() -> None:
    topics = {
        "sorting": "sort the words alphabetically:",
        "judging": "say whether the remark is kind:",
        "counting": "count how many things there are:",
        "naming": "name the capital city of the land:",
        "adding": "add the numbers and give the sum:",
    }
    rng = np.random.default_rng(0)

    def texts(topic: str, n: int) -> list[str]:
        return [f"{topics[topic]} x{rng.integers(10**6)} y{rng.integers(10**6)}" for _ in range(n)]

    names = list(topics)
    profiled = names[:-1]
    requests = FitRequests(
        texts=[t for n in profiled for t in texts(n, 30)],
        tasks=[n for n in profiled for _ in range(30)],
        gains=np.repeat(np.eye(5)[:4], 30, axis=0),
        sources=[TrainingRows.read(texts(n, 30), ["ok"] * 30) for n in names],
    )
    scores = np.linalg.svd(np.eye(5) - 0.2)[0][:, :4]
    profile = fit_profile(names, requests, scores, n_traits=1)
    [text] = texts("adding", 1)
    assert Router(profile, z=0.0).route(text).ranking[0].adapter == "adding"
