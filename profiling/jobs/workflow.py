"""The job as a workflow of DBOS Transact: finished steps are stored, so a killed job continues at the next one."""

from collections.abc import Callable

from dbos import DBOS

from ...adapters import ServerError
from ...serving.jobs.board import FIND, MEASURE
from .steps import Result, RowSteps, attempt

WORKFLOW = "measure-row"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0
MOST_PAUSES = 200
"""About 16 hours: a server that goes down again at every attempt may be going down because of the job."""


def job_id(name: str, weights: str, created: str, tasks_digest: str) -> str:
    """The id of the job that measures these weights, of the adapter added then, on these tasks: one for all workers."""
    return f"{name}.{weights[:12]}.{created}.{tasks_digest[:8]}"


def register_workflow(steps: RowSteps, running: set[str]) -> Callable[[str, str, list[str]], Result]:
    """Register the workflow over `steps` with DBOS, which must be there and not be launched yet.

    `running` holds the jobs that this process is doing.
    """

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
    def measure_row(name: str, weights: str, tasks: list[str]) -> Result:
        """Measure the row of an adapter on `tasks` and admit it; return the state in which the job ended."""
        job = str(DBOS.workflow_id)
        running.add(job)
        try:
            return do(name, weights, tasks)
        finally:
            running.discard(job)

    def do(name: str, weights: str, tasks: list[str]) -> Result:
        result = patiently(FIND, lambda: steps.find(name, weights, tasks), of_adapter=True)
        most, done = result.get("most", 0), 0
        for task in tasks:
            if _continues(result):
                result = patiently(
                    f"{MEASURE} base on {task}",
                    lambda task=task: steps.measure_base(name, weights, task),
                    of_adapter=False,
                )
        while _continues(result):
            result = patiently(f"{MEASURE} {name}", lambda: steps.measure_parts(name, weights), of_adapter=True)
            done += result.get("examples", 0)
        if "refused" in result:
            reason = result["refused"]
            undone = patiently("set aside", lambda: steps.set_aside(name, weights, reason), of_adapter=True)
            result = undone or result
        return {"done": done, "most": most, **_state(result)}

    return measure_row


def patiently(name: str, step: Callable[[], Result], *, of_adapter: bool) -> Result:
    """Do a step, again and again while the server or the registry is away."""
    result: Result = {}
    for pauses in range(MOST_PAUSES):
        result = DBOS.run_step({"name": name}, lambda: attempt(step, of_adapter=of_adapter))
        if "away" not in result:
            return result
        DBOS.sleep(min(FIRST_PAUSE_S * 2**pauses, LONGEST_PAUSE_S))
    raise ServerError(f"given up after {MOST_PAUSES} attempts: {result['away']}")


def _continues(result: Result) -> bool:
    return not result.keys() & {"refused", "withdrawn", "version"}


def _state(ended: Result) -> Result:
    if "version" in ended:
        return {"state": "done", "version": ended["version"]}
    if "withdrawn" in ended:
        return {"state": "withdrawn", "reason": ended["withdrawn"]}
    return {"state": "set-aside", "reason": ended["refused"]}
