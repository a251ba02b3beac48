"""Cards, traits and the matrix say what was measured, with its uncertainty."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_up_summary import damage_summary
from traitroute.adapters import AdapterState, Estimates, PairedOutcomes, Registry
from traitroute.serving.measured import paired_interval


def test_the_list_names_every_skill_with_its_best_and_worst(server: Any) -> None:
    listed = server.get("/v1/skills").json()
    skills = {skill["name"]: skill for skill in listed["skills"]}
    assert list(skills) == ["chef", "idle", "pilot"]
    assert skills["chef"]["best_tasks"][0]["task"] == "cooking"
    assert [e["task"] for e in skills["chef"]["side_effects"]] == ["law", "space"]
    assert skills["idle"]["best_tasks"] == []
    assert listed["base_model"] == "tiny"


def test_a_card_says_what_the_registry_knows(server: Any) -> None:
    card = server.get("/v1/skills/chef").json()
    assert card["licence"] == "apache-2.0"
    assert card["source"] == {
        "task": "cooking",
        "rows": 128,
        "metric": "label",
        "labels": ["soup", "bread"],
        "prompt": "{{ input }}",
    }
    cooking = card["gains"][0]
    assert cooking["gain"] == pytest.approx(0.7)
    assert cooking["low"] < 0.7 < cooking["high"]
    assert card["traits"][0]["name"] == "kitchen work"


def test_a_skill_that_is_not_measured_yet_has_a_card_without_gains(server: Any, registry: Registry) -> None:
    chef = registry.adapter("chef")
    changes = {"name": "new", "weights_digest": "a" * 64, "state": AdapterState.PENDING}
    registry.add_adapter(chef.model_copy(update=changes))
    server.refresh()
    card = server.get("/v1/skills/new").json()
    assert (card["state"], card["gains"], card["traits"]) == ("pending", [], [])


def test_an_unknown_skill_is_no_card(server: Any) -> None:
    for name in ("nobody", "..%2Fetc", "base"):
        assert server.get(f"/v1/skills/{name}").status_code == 404


def test_the_matrix_holds_gains_between_their_intervals(server: Any) -> None:
    matrix = server.get("/v1/matrix").json()
    low, gains, high = (np.array(matrix[part]) for part in ("low", "gains", "high"))
    assert gains.shape == (len(matrix["skills"]), len(matrix["tasks"])) == (3, 4)
    assert np.all((low < gains) & (gains < high))
    assert np.allclose(gains, np.array(matrix["scores"]) - matrix["base"])


def test_the_interval_of_an_estimated_row_is_its_own(server: Any, registry: Registry) -> None:
    stored = registry.profile(1)
    rough = Estimates(adapters=("chef",), errors=np.array([[0.2, 0.2, 0.01, 0.01]]), examples=np.full((1, 4), 4))
    registry.put_profile(stored.data, stored.summary.changed(estimated=rough))
    server.refresh()
    card = server.get("/v1/skills/chef").json()
    space = next(gain for gain in card["gains"] if gain["task"] == "space")
    assert space["high"] - space["gain"] == pytest.approx(1.96 * 0.01, abs=1e-4)
    assert {gain["examples"] for gain in card["gains"]} == {4}
    assert [gain["task"] for gain in card["side_effects"]] == ["law", "space"]


def test_a_summary_that_contradicts_itself_costs_skills_but_not_routing(
    server: Any, registry: Registry, text_of: Callable[[str], str]
) -> None:
    damage_summary(registry, 1, adapters=["chef"])
    server.refresh()
    assert server.get("/v1/skills").status_code == 503
    assert server.route(text_of("cooking")).headers["x-traitroute-adapter"] == "chef"


def test_traits_are_those_above_the_null(server: Any) -> None:
    found = server.get("/v1/traits").json()
    for trait in found["traits"]:
        assert not trait["trait"] or trait["variance"] > trait["null"]
        assert {loading["task"] for loading in trait["loadings"]} == {
            "cooking",
            "garden",
            "space",
            "law",
        }
    assert len(found["skills"][0]["scores"]) == len(found["traits"])


def test_intervals_hold_the_true_gain_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for p_won, p_lost in ((0.0, 0.0), (0.02, 0.0), (0.3, 0.1), (0.05, 0.3)):
        drawn = rng.multinomial(24, [p_won, p_lost, 1 - p_won - p_lost], size=4000)
        low, high = paired_interval((drawn[:, 0] - drawn[:, 1]) / 24, of_answers(drawn))
        covered = np.mean((low <= p_won - p_lost) & (p_won - p_lost <= high))
        assert covered >= 0.93
    assert np.isnan(paired_interval(np.zeros((1, 1)), PairedOutcomes.none(1, 1))[0])


def of_answers(drawn: np.ndarray) -> PairedOutcomes:
    differing = drawn[:, 0] + drawn[:, 1]
    return PairedOutcomes(differing=differing[None], squares=differing[None], examples=np.full((1, len(drawn)), 24))


def test_intervals_of_graded_gains_hold_the_true_gain_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for zeros, shift, spread in ((0.0, 0.4, 0.1), (0.5, 0.1, 0.2), (0.8, -0.3, 0.1), (0.0, 0.4, 0.3), (0.95, 0.3, 0.1)):
        drawn = np.clip(rng.normal(shift, spread, (24, 4000)), -1, 1) * (rng.random((24, 4000)) >= zeros)
        true = float(np.mean(np.clip(rng.normal(shift, spread, 1_000_000), -1, 1))) * (1 - zeros)
        low, high = (ends[:, 0] for ends in paired_interval(drawn.mean(axis=0)[:, None], PairedOutcomes.of([drawn])))
        assert np.mean((low <= true) & (true <= high)) >= 0.92
        assert np.all((low > 0) | (shift < 0) | (zeros > 0) | (spread > 0.2))


def test_intervals_of_a_judges_halves_are_half_as_wide_as_those_of_wins_and_losses() -> None:
    wins = np.random.default_rng(1).choice([1.0, 0.0, -1.0], p=[0.4, 0.3, 0.3], size=(24, 50))
    whole = paired_interval(wins.mean(axis=0)[:, None], PairedOutcomes.of([wins]))
    half = paired_interval(wins.mean(axis=0)[:, None] / 2, PairedOutcomes.of([wins / 2]))
    np.testing.assert_allclose(half, np.array(whole) / 2)


def test_long_lists_are_told_a_page_at_a_time(server: Any) -> None:
    rows = {
        "/v1/skills": ["skills"],
        "/v1/traits": ["skills"],
        "/v1/matrix": ["skills", "scores", "gains", "low", "high", "examples"],
    }
    for path, parts in rows.items():
        whole = server.get(path).json()
        assert whole["next"] is None
        pages = [server.get(f"{path}?limit=2").json()]
        assert pages[0]["next"] is not None
        pages.append(server.get(f"{path}?limit=2&after={pages[0]['next']}").json())
        for part in parts:
            assert [row for page in pages for row in page[part]] == whole[part]


def test_a_page_goes_on_after_a_skill_that_is_gone(server: Any, registry: Registry) -> None:
    after = server.get("/v1/skills?limit=2").json()["next"]
    registry.remove_adapter(after)
    server.refresh()
    assert [s["name"] for s in server.get(f"/v1/skills?after={after}").json()["skills"]] == ["pilot"]


def test_no_page_is_what_was_not_asked_for(server: Any) -> None:
    for query in ("limit=0", "limit=5000", "limit=all", "page=2"):
        assert server.get(f"/v1/skills?{query}").status_code == 400
    assert server.get("/v1/matrix?after=nobody").status_code == 400
