"""The protocols: nothing held out is fitted on, and nothing to confirm on is looked at."""

import numpy as np
import pytest
from routing.protocols import CONFIRMATIONS, GROUP_FOLDS, PROTOCOLS, TENTH, Fold, folds, is_confirmation
from routing.seen import Requests, Seen, see
from routing.table import OutcomeTable

EVERY = (*PROTOCOLS, *CONFIRMATIONS)
NEW_GROUPS = ("group_left_out", "both_left_out", "sources_only", "no_training_rows")


def of(table: OutcomeTable, protocol: str) -> list[Fold]:
    found = list(folds(table, protocol))
    assert found
    return found


def seen_in(table: OutcomeTable, fold: Fold) -> tuple[Seen, Requests]:
    return see(table, table.strict.astype(np.float64), fold)


def test_the_split_is_by_name_alone_and_a_third_is_kept_to_confirm_on() -> None:
    assert [is_confirmation(n) for n in ("group1", "paws", "mnli", "word_problems")] == [False, True, True, False]
    assert 0.28 < np.mean([is_confirmation(f"name {i}") for i in range(2000)]) < 0.38


@pytest.mark.parametrize("protocol", EVERY)
def test_no_item_is_fitted_on_and_scored(made_up: OutcomeTable, protocol: str) -> None:
    for fold in of(made_up, protocol):
        assert not np.isin(made_up.row[fold.test], made_up.row[fold.fit]).any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_groups_to_confirm_on_are_in_no_design_protocol(made_up: OutcomeTable, protocol: str) -> None:
    for fold in of(made_up, protocol):
        groups = np.unique(made_up.group[np.concatenate([fold.fit, fold.test])])
        assert not any(map(is_confirmation, groups.tolist()))


@pytest.mark.parametrize("protocol", CONFIRMATIONS)
def test_confirmation_is_tested_on_the_groups_kept_for_it_only(made_up: OutcomeTable, protocol: str) -> None:
    for fold in of(made_up, protocol):
        assert all(map(is_confirmation, np.unique(made_up.group[fold.test]).tolist()))


@pytest.mark.parametrize("protocol", [*NEW_GROUPS, *(f"confirm_{p}" for p in NEW_GROUPS)])
def test_a_group_left_out_is_left_out_whole(made_up: OutcomeTable, protocol: str) -> None:
    for fold in of(made_up, protocol):
        assert not np.isin(made_up.group[fold.test], made_up.group[fold.fit]).any()


def test_every_design_request_is_scored_once(made_up: OutcomeTable) -> None:
    design = [not is_confirmation(g) for g in made_up.group]
    main = np.flatnonzero((made_up.kind == "main") & design)
    for protocol in ("new_rows", "group_left_out", "both_left_out", "no_training_rows"):
        np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in of(made_up, protocol)])), main)
    assert len(of(made_up, "group_left_out")) == GROUP_FOLDS


@pytest.mark.parametrize("protocol", ["wording_left_out", "confirm_wording_left_out"])
def test_a_wording_left_out_is_new_and_its_data_set_is_not(made_up: OutcomeTable, protocol: str) -> None:
    asked = np.char.add(made_up.dataset, made_up.wording.astype(str))
    for fold in of(made_up, protocol):
        assert not np.isin(asked[fold.test], asked[fold.fit]).any()
        assert np.isin(made_up.dataset[fold.test], made_up.dataset[fold.fit]).all()
        assert "group5" not in made_up.group[fold.test]
    tested = np.concatenate([fold.test for fold in of(made_up, protocol)])
    assert len(np.unique(tested)) == len(tested)


def test_with_both_left_out_half_of_the_wordings_are_seen(made_up: OutcomeTable) -> None:
    for fold in of(made_up, "both_left_out"):
        for name in np.unique(made_up.dataset[fold.fit]):
            rows = fold.fit[made_up.dataset[fold.fit] == name]
            every = np.unique(made_up.wording[made_up.dataset == name])
            assert len(np.unique(made_up.wording[rows])) == (len(every) + 1) // 2


def test_only_what_adapters_were_trained_on_is_fitted_on(made_up: OutcomeTable) -> None:
    found = of(made_up, "sources_only")
    asked = [set(made_up.group[fold.test]) for fold in found]
    assert len(set.union(*asked)) == sum(map(len, asked))
    for fold, groups in zip(found, asked, strict=True):
        assert set(made_up.dataset[fold.fit]) <= {"set0a", "set0b", "set1a", "set1b", "set2a"}
        assert groups and not {"group0", "group1", "group2"} & groups
        assert seen_in(made_up, fold)[0].asked == groups


def test_what_adapters_do_at_home_says_nothing_of_strange_groups(made_up: OutcomeTable) -> None:
    fold, *_ = of(made_up, "sources_only")
    seen, _ = seen_in(made_up, fold)
    # Adapter 2 and the general one were trained on groups 2 and 0 to 1, of which group 0 is kept to confirm on.
    assert seen.alike[seen.groups == "group2"].all(axis=0).tolist() == [True, True, False, True]
    assert seen.alike[seen.groups == "group1"].all(axis=0).tolist() == [True, False, True, False]
    assert seen_in(made_up, of(made_up, "group_left_out")[0])[0].alike.all()


def test_agents_are_asked_of_items_of_their_own(made_up: OutcomeTable) -> None:
    (fold,) = of(made_up, "agent")
    assert set(made_up.kind[fold.test]) == {"tools"}
    assert set(made_up.kind[fold.fit]) == {"main"}


def test_each_adapter_is_new_once_and_known_by_its_means(made_up: OutcomeTable) -> None:
    found = of(made_up, "new_adapter")
    assert [fold.new for fold in found] == list(range(len(made_up.adapters)))
    seen, _ = seen_in(made_up, found[1])
    strict = made_up.strict.astype(np.float64)
    for name in np.unique(seen.datasets):
        rows = found[1].fit[made_up.dataset[found[1].fit] == name]
        gains = seen.gains[seen.datasets == name]
        assert gains[:, 1] == pytest.approx((strict[rows, 2] - strict[rows, 0]).mean())
        np.testing.assert_array_equal(gains[:, 0], strict[rows, 1] - strict[rows, 0])


def test_a_tenth_is_less_known(made_up: OutcomeTable) -> None:
    whole, tenth = (of(made_up, p)[2] for p in ("new_adapter", "new_adapter_tenth"))
    seen, _ = seen_in(made_up, tenth)
    gains = np.array([seen.gains[seen.datasets == n][0, 2] for n in np.unique(seen.datasets)])
    np.testing.assert_allclose(gains * TENTH, np.round(gains * TENTH), atol=1e-9)
    assert not np.array_equal(seen.gains, seen_in(made_up, whole)[0].gains)


def test_training_rows_that_are_not_known_are_not_shown(made_up: OutcomeTable) -> None:
    for protocol, known in (("new_adapter_no_rows", {0, 1, 2}), ("no_training_rows", set())):
        fold = of(made_up, protocol)[-1]
        seen, _ = seen_in(made_up, fold)
        assert set(seen.table.source_adapter.tolist()) == known
        assert len(seen.table.source_sentence) == len(seen.table.source_marks) == 10 * len(known)


@pytest.mark.parametrize("protocol", EVERY)
def test_settings_are_chosen_by_leaving_out_the_same(made_up: OutcomeTable, protocol: str) -> None:
    fold = of(made_up, protocol)[0]
    seen, _ = seen_in(made_up, fold)
    inner = seen.inner_folds()
    assert inner
    asked = np.char.add(seen.datasets, seen.wordings.astype(str))
    for fit, out in inner:
        assert not np.isin(seen.items[out], seen.items[fit]).any()
        if fold.left_out in ("groups", "homes"):
            assert not np.isin(seen.groups[out], seen.groups[fit]).any()
        else:
            assert np.isin(seen.datasets[out], seen.datasets[fit]).all()
        assert np.isin(asked[out], asked[fit]).any() == (fold.left_out == "rows")
