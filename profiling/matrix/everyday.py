"""What adapters lose on everyday requests: one more task, which no matrix holds and no request is likened to.

The router takes it into account as far as a request seems to be an everyday one (`router/everyday.py`). Of eleven
adapters on SmolLM2 that were asked 144 of them one lost 5 points of 77, and three all but one (docs/decisions.md).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from ...adapters import Adapter, Cell, InputError, RefusalError
from ...router.everyday import LOSS
from ..tasks.metrics import read_metric
from ..tasks.sources import EverydayRows
from ..tasks.task import Task

REQUESTS = 24
"""Three of each sort. More would make the loss surer, and every adapter dearer."""
MAX_TOKENS = 32
PRIOR = 5
"""What is lost on average counts as so many requests: adapters differ some twice as much as chance on 24 does."""
_logger = logging.getLogger(__name__)


@cache
def everyday_task() -> Task:
    """The task, of which every adapter's cell is kept beside those of the profile's tasks."""
    return Task(
        name="everyday-requests",
        rows=EverydayRows(),
        metric=read_metric({"name": "contains", "references": "accepted"}),
        test=REQUESTS,
        max_tokens=MAX_TOKENS,
    )


@contextmanager
def spared(task: Task) -> Iterator[None]:
    """A model that cannot be asked everyday requests, such as one of a tiny vocabulary, is profiled without them.

    The error is logged; of any other task it is raised.
    """
    try:
        yield
    except (InputError, RefusalError) as exc:
        if task != everyday_task():
            raise
        _logger.warning("what is lost on everyday requests is not known: %s", exc)


def everyday_losses(adapters: Sequence[Adapter], cell: Callable[[Adapter | None, Task], Cell]) -> dict[str, float]:
    """What each of the adapters loses there against base, in score points, from 0; `cell` measures unless it is.

    Those of which it cannot be measured are left out.
    """
    task, losses, base = everyday_task(), dict[str, float](), None
    with spared(task):
        base = cell(None, task).outcomes.strict.astype(float)
    for each in adapters if base is not None else ():
        with spared(task):
            lost = float((base - cell(each, task).outcomes.strict).sum())
            losses[each.name] = max(0.0, (lost + PRIOR * LOSS) / (len(base) + PRIOR))
    return losses
