"""The job as a workflow of DBOS Transact: each step is kept when it is done, so that a killed job goes on at the next."""

from collections.abc import Callable

from dbos import DBOS

from ...adapters import ServerError
from ...serving.jobs.board import FIND, MEASURE
from .outcome import Told, told
from .steps import RowSteps

WORKFLOW = "measure-row"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0
MOST_PAUSES = 200
"""About 16 hours: a server that goes down again at every attempt may be going down because of the job."""


def job_id(name: str, weights: str, created: str, tasks_digest: str) -> str:
    """The id of the job that measures these weights, of the adapter added then, on these tasks: one for all workers."""
    return f"{name}.{weights[:12]}.{created}.{tasks_digest[:8]}"


def register_workflow(steps: RowSteps, running: set[str]) -> Callable[[str, str, list[str]], Told]:
    """Register the workflow over `steps` with DBOS, which must be there and not be launched yet.

    `running` holds the jobs that this process does at the time.
    """

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
    def measure_row(name: str, weights: str, tasks: list[str]) -> Told:
        """Measure the row of an adapter on `tasks` and admit it; tells the state in which the job ended."""
        job = str(DBOS.workflow_id)
        running.add(job)
        try:
            return do(name, weights, tasks)
        finally:
            running.discard(job)

    def do(name: str, weights: str, tasks: list[str]) -> Told:
        found = _patiently(FIND, lambda: steps.find(name, weights, tasks), of_adapter=True)
        most, done = found.get("most", 0), 0
        for task in tasks:
            if _goes_on(found):
                found = _patiently(
                    f"{MEASURE} base on {task}",
                    lambda task=task: steps.measure_base(name, weights, task),
                    of_adapter=False,
                )
        while _goes_on(found):
            found = _patiently(f"{MEASURE} {name}", lambda: steps.measure_parts(name, weights), of_adapter=True)
            done += found.get("examples", 0)
        if "refused" in found:
            reason = found["refused"]
            undone = _patiently("set aside", lambda: steps.set_aside(name, weights, reason), of_adapter=True)
            found = undone or found
        return {"done": done, "most": most, **_state(found)}

    return measure_row


def _patiently(name: str, step: Callable[[], Told], *, of_adapter: bool) -> Told:
    """Do a step, again and again while the server or the registry is away."""
    found: Told = {}
    for pauses in range(MOST_PAUSES):
        found = DBOS.run_step({"name": name}, lambda: told(step, of_adapter=of_adapter))
        if "away" not in found:
            return found
        DBOS.sleep(min(FIRST_PAUSE_S * 2**pauses, LONGEST_PAUSE_S))
    raise ServerError(f"given up after {MOST_PAUSES} attempts: {found['away']}")


def _goes_on(found: Told) -> bool:
    return not found.keys() & {"refused", "withdrawn", "version"}


def _state(ended: Told) -> Told:
    if "version" in ended:
        return {"state": "done", "version": ended["version"]}
    if "withdrawn" in ended:
        return {"state": "withdrawn", "reason": ended["withdrawn"]}
    return {"state": "set-aside", "reason": ended["refused"]}
