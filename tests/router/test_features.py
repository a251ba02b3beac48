"""Features of request texts."""

import numpy as np
import pytest
from traitroute.router import RequestFeatures, RequestTokens
from traitroute.router.text import MAX_CHARS

TEXTS = [f"solve {i} plus {i + 2} now?" for i in range(20)] + ["review: I loved it!"] * 5


@pytest.fixture
def features() -> RequestFeatures:
    return RequestFeatures.fit(TEXTS)


def test_a_text_has_the_same_features_alone_and_in_company(features: RequestFeatures) -> None:
    together = features.transform(TEXTS)
    np.testing.assert_allclose(features.transform(TEXTS[3:4])[0], together[3])


def test_fitting_twice_gives_the_same_features(features: RequestFeatures) -> None:
    again = RequestFeatures.fit(TEXTS)
    np.testing.assert_array_equal(again.transform(TEXTS), features.transform(TEXTS))


def seen_mass(features: RequestFeatures, texts: list[str]) -> np.ndarray:
    """The share of the words at the ends of texts that the fitting requests span."""
    return np.sum(features.split(features.transform(texts))[0] ** 2, axis=1)


def test_unknown_words_lie_outside_the_ends(features: RequestFeatures) -> None:
    texts = ["review: I loved it!", "review: I loved vorpal borogoves", "vorpal borogoves", ""]
    known, mixed, unknown, empty = seen_mass(features, texts)
    assert known > 0.95 > mixed > unknown
    assert unknown == pytest.approx(0.0, abs=0.05)
    assert empty == 0.0


def test_middle_of_a_very_long_text_is_not_read(features: RequestFeatures) -> None:
    head, tail = "solve " * 3000, " now" * 4000
    texts = [head + middle + tail for middle in ("x" * 9, "loved " * 100_000)]
    a, b = features.transform(texts)
    np.testing.assert_array_equal(a, b)
    assert max(map(len, texts)) > MAX_CHARS


def test_words_that_are_nowhere_tell_most_and_those_that_are_everywhere_nothing() -> None:
    texts = [f"please sort {word}" for word in ("apples", "pears", "plums", "figs")]
    rarity = RequestFeatures.fit(texts).rarity
    places = {word: RequestTokens.read(word).whole.places[0] for word in ("please", "apples", "zebra")}
    assert rarity[places["please"]] == 0 < rarity[places["apples"]] < rarity[places["zebra"]] == 1


def test_features_are_the_ends_and_the_meaning(features: RequestFeatures) -> None:
    row = features.row("solve 3 plus 5 now?")
    ends, meaning = features.split(row)
    assert len(ends) == features.basis.shape[1]
    np.testing.assert_allclose(meaning, RequestTokens.read("solve 3 plus 5 now?").meaning, rtol=1e-6)


def test_refitted_features_know_only_what_they_were_refitted_on(features: RequestFeatures) -> None:
    solved = TEXTS[:20]
    again, _ = features.refit(solved)
    assert seen_mass(again, solved).min() > 0.95
    assert seen_mass(again, TEXTS[-1:])[0] < 0.1


def test_refitted_features_span_what_fitted_ones_do(features: RequestFeatures) -> None:
    part = TEXTS[::2]
    anew, (again, rows) = RequestFeatures.fit(part), features.refit(part)
    np.testing.assert_array_equal(rows, again.transform(part))
    # Eleven of these texts differ.
    np.testing.assert_allclose(np.linalg.norm(again.basis.T @ anew.basis[:, :11], axis=0), 1, atol=0.01)
    np.testing.assert_allclose(again.basis.T @ again.basis, np.eye(again.basis.shape[1]), atol=1e-5)
