"""The fewest changes within a loss, checked against trying everything."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traitroute.serving.skills.skills import assign, switches

LOSS = st.integers(0, 20).map(lambda n: n / 20)
STEP = st.dictionaries(st.sampled_from("abc"), LOSS, max_size=3).map(lambda s: {**s, "base": 0.0})


@settings(max_examples=150)
@given(steps=st.lists(STEP, min_size=1, max_size=5), max_loss=st.integers(0, 40))
def test_no_assignment_has_fewer_changes_or_as_few_at_less_loss(steps: list[dict[str, float]], max_loss: int) -> None:
    limit = max_loss / 20
    found = assign(steps, limit)
    tried = []
    for skills in product(*steps):
        loss = sum(step[skill] for step, skill in zip(steps, skills, strict=True))
        if loss <= limit + 1e-9:
            tried.append((switches(skills), round(loss, 9)))
    assert (found.switches, round(found.loss, 9)) == min(tried)
    paid = sum(step[skill] for step, skill in zip(steps, found.skills, strict=True))
    assert paid == pytest.approx(found.loss)


def test_without_a_loss_each_step_keeps_its_best_skill() -> None:
    steps = [{"a": 0.0, "b": 0.1}, {"b": 0.0, "a": 0.1}, {"a": 0.0, "b": 0.1}]
    assert assign(steps, 0.0).skills == ("a", "b", "a")
    assert assign(steps, 0.1).skills == ("a", "a", "a")


def test_equally_good_skills_are_not_changed() -> None:
    steps = [{"a": 0.0, "b": 0.0}, {"b": 0.0}, {"a": 0.0, "b": 0.0}]
    assert assign(steps, 0.0).skills == ("b", "b", "b")
