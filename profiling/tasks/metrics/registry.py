"""Metrics by their names, and how `metric:` of a task is read."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .metric import Metric
from .rules import Exact, Json, Label, Number, Text

_BuiltIn = Label | Number | Exact | Json | Text

METRICS: Mapping[str, type[Metric]] = {m.model_fields["name"].default: m for m in (Label, Number, Exact, Json, Text)}
"""The metrics that a suite may name."""


def _named(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


AnyMetric = Annotated[_BuiltIn, Field(discriminator="name"), BeforeValidator(_named)]
