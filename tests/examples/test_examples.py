"""Every example, run as its reader would run it, against a real server and a skill that was really trained."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from traitroute.adapters import Registry

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]

Run = Callable[..., str]
MOODS = ("negative", "neutral", "positive")


def answer(printed: str) -> str:
    """The first answer that an example printed."""
    return printed.partition("answer: ")[2].splitlines()[0].strip()


def test_the_openai_client_is_answered_by_the_skill(run_example: Run) -> None:
    request = "Rate the remark as positive, neutral or negative.\nThe soup was cold."
    printed = run_example("openai_client.py", request)
    assert "adapter: sentiment3 (the answer names sentiment3)" in printed
    assert answer(printed) in MOODS
    assert f"streamed: {answer(printed)}" in printed


def test_the_agents_sdk_is_answered_by_the_skill_or_by_base(run_example: Run) -> None:
    rated, capital = run_example("openai_agents.py").split("\n\n")[:2]
    assert "skill: sentiment3, predicted gain +0." in rated
    assert answer(rated) in MOODS
    assert "skill: base" in capital
    assert "Paris" in answer(capital)


def test_pydantic_ai_is_answered_by_the_skill_or_by_base(run_example: Run) -> None:
    rated, capital = run_example("pydantic_ai_client.py").split("\n\n")[:2]
    assert "skill: sentiment3" in rated
    assert "predicted gain: +0." in rated
    assert answer(rated) in MOODS
    assert "skill: smollm2-135m-instruct" in capital


def test_langchain_rates_a_batch(run_example: Run) -> None:
    printed = run_example("langchain_client.py", "It was great.", "It was awful.")
    remarks = printed.strip().split("\n\n")
    assert len(remarks) == 2
    assert all("skill: sentiment3, predicted gain +0." in remark for remark in remarks)
    assert {answer(remark) for remark in remarks} <= set(MOODS)


def test_the_mcp_client_is_told_the_skill_and_its_card(run_example: Run) -> None:
    printed = run_example("mcp_client.py")
    assert "sentiment3 -> base -> sentiment3; changes of skill: 2, loss: 0.00" in printed
    assert "error: there is no skill 'no-such-skill' here" in printed
    assert "> read skill://sentiment3\n  # sentiment3" in printed


def test_the_agent_runs_each_step_on_its_skill_and_tells_how_it_went(run_example: Run, real_run: Path) -> None:
    printed = run_example("plan_agent.py")
    assert printed.startswith("plan: ")
    skills = re.findall(r"^skill: (\w+), predicted gain", printed, re.MULTILINE)
    assert len(skills) == 4
    assert "sentiment3" in skills
    assert "(reward 1 for sentiment3)" in printed
    with Registry.open(real_run, read_only=True) as opened:
        assert len(opened.feedback()) == len(skills)
