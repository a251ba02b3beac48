"""Metrics by their names, and how `metric:` of a task is read."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from ....adapters import did_you_mean
from .agreement import Agreement
from .code import Code
from .format import Format
from .harness import LmEval
from .json_schema import JsonSchema
from .judge import Judge
from .metric import Metric
from .overlap import F1, Bleu, Chrf, RougeL
from .own import Installed, Python, installed_metrics
from .rules import Choice, Contains, Exact, Json, Label, Number, NumberInText, Regex, Text

_ALL: tuple[type[Metric], ...] = (
    *(Label, Number, Exact, Json, Text, NumberInText, Contains, Choice, Regex),
    *(JsonSchema, Code, F1, RougeL, Bleu, Chrf, LmEval, Python, Format, Agreement, Judge),
)
METRICS: Mapping[str, type[Metric]] = {metric.model_fields["name"].default: metric for metric in _ALL}
"""The metrics that come with TraitRoute, by the names that a suite gives."""


def read_metric(given: Any) -> Metric:
    """The metric that a task's `metric:` names: a name, or a name with settings.

    {python: X} is short for {name: python, function: X}.

    Raises:
        ValueError: there is no such metric, or its settings are not as they should be.
    """
    if isinstance(given, Metric):
        return given
    settings = {"name": given} if isinstance(given, str) else given
    if isinstance(settings, dict) and "name" not in settings and "python" in settings:
        function, rest = settings["python"], {key: value for key, value in settings.items() if key != "python"}
        settings = {"name": "python", "function": function, **rest}
    name = settings.get("name") if isinstance(settings, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"a metric is a name, or {{name: NAME, and settings}}; names: {', '.join(METRICS)}")
    if name not in METRICS and name not in installed_metrics():
        known = [*METRICS, *installed_metrics()]
        raise ValueError(f"there is no metric {name!r}{did_you_mean(name, known)}")
    try:
        return METRICS.get(name, Installed).model_validate(settings)
    except ValidationError as exc:
        raise ValueError(f"metric {name!r}: " + "; ".join(map(_line, exc.errors()))) from exc


def _line(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


AnyMetric = Annotated[Metric, BeforeValidator(read_metric)]
"""A task's metric, read from what a suite says."""
