"""Metrics of your own: a function that your suite names, or an entry point of the group `traitroute.metrics`.

It is called with an output and its example, and with the metric's settings as keywords, and gives a number from 0 to 1
(or true or false, or a whole `Judgement`):

    def politeness(output: str, example: Example) -> float: ...

A class is made once, with the settings, and then called so. Nothing is imported before an output is to be judged, or
the digest of a task made, and then only what the suite names. The module's source goes into the digest: a changed
metric measures anew.
"""

import hashlib
import inspect
import numbers
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field

from ....adapters import MetricError
from ..scoring import Judgement
from .metric import Answer, Example, Metric, graded, said

if TYPE_CHECKING:
    from ..task import Task

GROUP = "traitroute.metrics"
"""The group of entry points that metrics are installed under."""


class Scorer(Protocol):
    """What a metric of your own is: anything that is called so."""

    def __call__(self, output: str, example: Example, /) -> float | Judgement:
        """How good `output` is on `example`, from 0 to 1."""
        ...


class _Own(Metric):
    family: ClassVar[str] = "own metric"
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ()
    columns: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the suite says it reads."""
        return self.columns

    @property
    def rules(self) -> Any:
        """The settings, and a digest of the source of the module."""
        return [self.setting, _source_digest(self._object())]

    def judge(self, answers: Sequence[Answer], task: "Task") -> list[Judgement]:
        """Make the scorer once, and call it on every output."""
        found, settings = self._object(), self._settings()
        try:
            scorer = found(**settings) if isinstance(found, type) else partial(found, **settings)
        except Exception as exc:
            raise MetricError(f"it cannot be made with the settings {settings}: {said(exc)}") from exc
        return [_called(scorer, answer) for answer in answers]

    def _object(self) -> Any:
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        raise NotImplementedError


class Python(_Own):
    """The function or class `function` ("package.module:name"), with `settings`."""

    name: str = "python"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    settings: dict[str, Any] = Field(default={})

    def _object(self) -> Any:
        return _loaded(self.function)

    def _settings(self) -> dict[str, Any]:
        return self.settings


class Installed(_Own):
    """A metric that another package installs, by the name of its entry point; further keys are its settings."""

    model_config = ConfigDict(extra="allow")

    name: str

    def _object(self) -> Any:
        return _loaded(installed_metrics()[self.name].value)

    def _settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def installed_metrics() -> dict[str, EntryPoint]:
    """The metrics that other packages install, by name; none is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


@lru_cache(maxsize=64)
def _loaded(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as exc:
        raise MetricError(
            f"{path} cannot be imported ({said(exc)}): install its package, or put its folder on PYTHONPATH"
        ) from exc
    if not callable(found):
        raise MetricError(f"{path} is {type(found).__name__} and cannot be called: name a function or a class")
    return found


def _source_digest(found: Any) -> str:
    try:
        source = Path(inspect.getsourcefile(found) or "").read_bytes()
    except (TypeError, OSError):
        return "no source"
    return hashlib.sha256(source).hexdigest()


def _called(scorer: Any, answer: Answer) -> Judgement:
    where = f"(example: {answer.example.prompt[:80]!r})"
    try:
        given = scorer(answer.output, answer.example)
    except Exception as exc:
        raise MetricError(f"it raised {said(exc)} {where}") from exc
    if isinstance(given, Judgement):
        return given
    if not isinstance(given, numbers.Real):
        raise MetricError(f"it gave {str(given)[:80]!r} ({type(given).__name__}), and no number {where}")
    return graded(float(given), answer.output)
