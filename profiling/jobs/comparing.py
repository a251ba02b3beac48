"""Adapters are compared on recurring requests by a worker that is told to: a round at a time, as a durable job.

A round is a workflow of DBOS: its steps are the plan, the trial on each task, and each kind; a killed one goes on at
the step it was in. What a step answers with is kept as JSON: names, digests, verdicts and gains, never a text. Requests
go to the server at the lowest priority, like those of rows.

What it costs is bounded: one round at a time over all workers, one a day, of `KINDS` kinds at most, and begun only when
no adapter is being measured. A kind that was compared, or could not be, is compared again only once the profile was
fitted anew, or by another referee. Nothing joins the profile: `traitroute samples admit` does that.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from dbos import DBOS, SetWorkflowID

from ...adapters import InputError, MetricError, RegistryError
from ...serving.jobs.board import QUEUE
from ..judge_trial import JudgeTrial, TrialCell
from ..recurring import Comparer, Plan
from .steps import Result
from .workflow import patiently

COMPARING = "compare-kinds"
"""The queue of rounds, and the name of their workflow."""
ROUND_EVERY = timedelta(days=1)
KINDS = 5
UNDER_WAY = ["ENQUEUED", "DELAYED", "PENDING"]


@dataclass
class ComparingSteps:
    """The steps of a round, each of which may be repeated; an error that repeating does not mend is a result too:
    `refused` where the kinds cannot be compared, `withdrawn` where what was planned is of the past."""

    comparer: Comparer

    def waiting(self) -> list[str]:
        """The kinds that are ready and were not compared, the largest first."""
        registry = self.comparer.registry
        lineage, by = set(registry.lineage()), self.comparer.referee.name
        known = {each.kind for each in registry.comparisons() if each.profile_version in lineage and each.by == by}
        return [kind for kind in self.comparer.ready() if kind not in known]

    def plan(self, kinds: Sequence[str]) -> Result:
        """What is to be done, of the kinds that nobody has compared by now."""
        left = [kind for kind in self.waiting() if kind in kinds]
        if not left:
            return {"withdrawn": "nothing is left to compare"}
        return _told(lambda: {"plan": self.comparer.plan(left).to_json()})

    def try_on(self, plan: Result, task: str) -> Result:
        """The verdicts and gains on a profiled task."""

        def step() -> Result:
            cells = self.comparer.try_on(Plan.of_json(plan), task)
            return {"cells": [[c.adapter, c.task, c.verdicts.tolist(), c.gains.tolist()] for c in cells]}

        return _told(step)

    def trial(self, cells: Sequence[tuple[str, str, list[float], list[float]]]) -> Result:
        """How far verdicts are to be believed."""

        def step() -> Result:
            return {"trial": asdict(JudgeTrial.of([_cell(*each) for each in cells]))}

        return _told(step)

    def compare(self, plan: Result, kind: str, trial: Result) -> Result:
        """Compare a kind, unless that was done before this step was killed."""

        def step() -> Result:
            if kind in self.waiting():
                self.comparer.compare_kind(Plan.of_json(plan), kind, JudgeTrial(**trial))
            return {"compared": 1}

        return _told(step)

    def refuse(self, kinds: Sequence[str], why: str) -> Result:
        """Keep why these kinds could not be compared."""
        self.comparer.refuse(kinds, why)
        return {}


@dataclass
class Rounds:
    """Begins rounds of `steps`, and does them; `say` reports to people."""

    steps: ComparingSteps
    say: Callable[[str], None]

    def register(self, running: set[str]) -> None:
        """Register the workflow with DBOS, which must be there and not be launched yet; `running` holds the jobs of
        this process."""
        steps = self.steps

        @DBOS.workflow(name=COMPARING, max_recovery_attempts=None)
        def compare_kinds(kinds: list[str]) -> Result:
            """Compare the adapters on some kinds; return how many were compared, or the reason why none was."""
            job = str(DBOS.workflow_id)
            running.add(job)
            try:
                return _round(steps, kinds)
            finally:
                running.discard(job)

        self._workflow = compare_kinds

    def begin(self) -> None:
        """Queue the next round, where one is due and nothing else is under way."""
        newest = DBOS.list_workflows(queue_name=COMPARING, limit=1, sort_desc=True, load_input=False, load_output=False)
        if newest and newest[0].status in UNDER_WAY:
            return
        if newest and datetime.now(UTC) - _time(newest[0].created_at) < ROUND_EVERY:
            return
        if DBOS.list_workflows(status=UNDER_WAY, queue_name=QUEUE, limit=1, load_input=False, load_output=False):
            return
        if not (kinds := self.steps.waiting()[:KINDS]):
            return
        version = max(self.steps.comparer.registry.lineage())
        digest = hashlib.sha256(f"{self.steps.comparer.referee.name} {sorted(kinds)}".encode()).hexdigest()[:12]
        # Two workers that find the same begin it once.
        with SetWorkflowID(f"{COMPARING}.{version}.{digest}"):
            DBOS.enqueue_workflow(COMPARING, self._workflow, kinds)
        self.say(f"compares the adapters on {', '.join(kinds)}: traitroute samples compared")


def _round(steps: ComparingSteps, kinds: list[str]) -> Result:
    result = patiently("plan", lambda: steps.plan(kinds), of_adapter=True)
    if "plan" not in result:
        return _ended(steps, kinds, result)
    plan, cells = result["plan"], []
    for task in plan["tasks"]:
        result = patiently(f"try on {task}", lambda task=task: steps.try_on(plan, task), of_adapter=True)
        if "cells" not in result:
            return _ended(steps, plan["kinds"], result)
        cells += result["cells"]
    result = patiently("trial", lambda: steps.trial(cells), of_adapter=True)
    if "trial" not in result:
        return _ended(steps, plan["kinds"], result)
    trial, compared = result["trial"], 0
    for kind in plan["kinds"]:
        result = patiently(f"compare {kind}", lambda kind=kind: steps.compare(plan, kind, trial), of_adapter=True)
        compared += result.get("compared", 0)
        _ended(steps, [kind], result)
    return {"compared": compared}


def _ended(steps: ComparingSteps, kinds: Sequence[str], result: Result) -> Result:
    """Keep why kinds could not be compared, where that is their own or the referee's fault."""
    if "refused" in result:
        patiently("refuse", lambda: steps.refuse(kinds, result["refused"]), of_adapter=True)
    return {"compared": 0, "reason": result.get("refused", result.get("withdrawn"))}


def _told(step: Callable[[], Result]) -> Result:
    try:
        return step()
    except MetricError as exc:
        return {"refused": str(exc)}
    except RegistryError:
        raise
    except InputError as exc:
        return {"withdrawn": str(exc)}


def _cell(adapter: str, task: str, verdicts: Sequence[float], gains: Sequence[float]) -> TrialCell:
    return TrialCell(adapter, task, np.array(verdicts), np.array(gains))


def _time(milliseconds: int | None) -> datetime:
    return datetime.fromtimestamp((milliseconds or 0) / 1000, UTC)
