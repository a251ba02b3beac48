"""What adapters lose on everyday requests is measured beside the tasks, and stays with the profile."""

from collections import Counter

import numpy as np
import pytest
from traitroute.adapters import Adapter, Cell, FinishReason, RefusalError, Registry
from traitroute.profiling import Task
from traitroute.profiling.fit import refit
from traitroute.profiling.matrix.everyday import PRIOR, REQUESTS, everyday_losses, everyday_task, spared
from traitroute.profiling.matrix.measure import to_outcomes
from traitroute.router import Router
from traitroute.router.everyday import LOSS, everyday_requests
from traitroute.serving.engines import EngineResult

from ..conftest import EVERYDAY, Fleet, adapter


def test_there_are_as_many_requests_of_each_sort() -> None:
    sort = {each.text: each.sort for each in everyday_requests()}
    asked = [sort[text] for text in EVERYDAY]
    assert len(asked) == REQUESTS
    assert set(Counter(asked).values()) == {3}


def test_base_answers_rightly_by_an_accepted_word() -> None:
    task = everyday_task()
    judged = task.judge([e.target for e in task.test_examples], task.test_examples)
    assert all(each.strict for each in judged)


@pytest.mark.parametrize(("right", "lost"), [(0, 24), (18, 6), (24, 0)])
def test_the_loss_is_drawn_to_the_usual_one(right: int, lost: int) -> None:
    task = everyday_task()
    examples = task.test_examples

    def cell(adapter: Adapter | None, task: Task) -> Cell:
        count = REQUESTS if adapter is None else right
        texts = [e.target if i < count else "?" for i, e in enumerate(examples)]
        results = [EngineResult(t, 1, FinishReason.STOP, (-1.0,), (1,)) for t in texts]
        return Cell("", adapter and adapter.name, task.name, to_outcomes(task, examples, results))

    expected = (lost + PRIOR * LOSS) / (REQUESTS + PRIOR)
    assert everyday_losses([adapter("one", "1")], cell)["one"] == pytest.approx(expected)


def losses(registry: Registry) -> dict[str, float]:
    """What the newest router takes each adapter to lose."""
    profile = Router.from_registry(registry).profile
    return dict(zip(profile.adapters, np.round(profile.everyday_losses, 4).tolist(), strict=True))


def test_a_newcomer_joins_with_its_own_loss_and_keeps_it(fleet: Fleet) -> None:
    fleet.engine.chatty = "4"
    usual = {"one": LOSS, "two": LOSS, "three": LOSS}
    assert losses(fleet.registry) == usual
    none = round(PRIOR * LOSS / (REQUESTS + PRIOR), 4)
    fleet.measure("four", full=True)
    assert losses(fleet.registry) == {**usual, "four": none}
    stored = fleet.registry.latest_profile()
    assert stored is not None
    assert stored.summary.everyday == {"four": pytest.approx(none, abs=1e-4)}
    # Measured again, an adapter of the profile has its own too, and a fit anew keeps both.
    fleet.measure("one", full=True)
    refit(fleet.registry)
    all_lost = round((REQUESTS + PRIOR * LOSS) / (REQUESTS + PRIOR), 4)
    assert losses(fleet.registry) == {**usual, "one": all_lost, "four": none}


def test_an_adapter_that_is_refused_is_left_out_alone(caplog: pytest.LogCaptureFixture) -> None:
    task = everyday_task()

    def cell(who: Adapter | None, task: Task) -> Cell:
        if who is not None and who.name == "one":
            raise RefusalError("no such adapter", status=404)
        results = [EngineResult(e.target, 1, FinishReason.STOP, (-1.0,), (1,)) for e in task.test_examples]
        return Cell("", who and who.name, task.name, to_outcomes(task, task.test_examples, results))

    assert everyday_losses([adapter("one", "1"), adapter("two", "2")], cell).keys() == {"two"}
    assert "what is lost on everyday requests is not known: no such adapter" in caplog.text
    with pytest.raises(RefusalError), spared(task.model_copy(update={"name": "another"})):
        raise RefusalError("of another task", status=404)
