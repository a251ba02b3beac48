"""A whole plan in one call: a skill a step, and as few changes as a stated loss allows."""

from collections.abc import Callable
from typing import Any

Text = Callable[[str], str]


def plan(server: Any, *tasks: str, max_loss: float = 0.0) -> Any:
    steps = [{"task": task, "k": 2} for task in tasks]
    response = server.post("/v1/skills/plan", {"steps": steps, "max_loss": max_loss})
    assert response.status_code == 200, response.text
    return response.json()


def test_without_a_loss_a_plan_is_what_each_step_selects(server: Any, text_of: Text) -> None:
    tasks = [text_of(task) for task in ("cooking", "space", "garden")]
    found = plan(server, *tasks)
    assert [step["assigned"] for step in found["steps"]] == ["chef", "pilot", "chef"]
    assert (found["switches"], found["unplanned_switches"], found["loss"]) == (2, 2, 0)
    for step, task in zip(found["steps"], tasks, strict=True):
        assert step["selection"]["ranking"] == server.select(task, k=2)["ranking"]


def test_a_loss_buys_fewer_changes_and_is_kept(server: Any, text_of: Text) -> None:
    found = plan(server, *(text_of(t) for t in ("cooking", "law", "garden")), max_loss=0.3)
    assert found["switches"] <= found["unplanned_switches"]
    assert found["loss"] <= 0.3
    everything = plan(server, text_of("cooking"), text_of("space"), max_loss=2)
    assert everything["switches"] == 0
    assert everything["loss"] > 0.3


def test_a_plan_never_uses_a_skill_that_is_not_sure_to_help(server: Any, text_of: Text) -> None:
    found = plan(server, *(text_of(t) for t in ("cooking", "law", "cooking")), max_loss=50)
    for step in found["steps"]:
        low = {s["name"]: s["low"] for s in step["selection"]["ranking"]}
        assert step["assigned"] == "base" or low[step["assigned"]] > 0


def test_the_fault_of_a_step_names_the_step(server: Any) -> None:
    body = {"steps": [{"task": "simmer"}, {"messages": []}]}
    response = server.post("/v1/skills/plan", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "steps.1.messages"


def test_feedback_is_given_on_the_assigned_skill(server: Any, text_of: Text) -> None:
    found = plan(server, text_of("cooking"), text_of("space"))
    told = {"decision": found["steps"][1]["decision"], "reward": 1}
    assert server.post("/v1/feedback", told).json()["skill"] == "pilot"
