"""JSON of the form that a schema asks for."""

import json
import time
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import MetricError

from .conftest import Judge, a_task

pytest.importorskip("jsonschema_rs", reason="needs the extra: pip install 'traitroute[metrics]'")

SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "pattern": "^(a+)+$"}}}
METRIC = {"name": "json_schema", "schema": SCHEMA}


@pytest.mark.parametrize(
    ("output", "strict", "lenient", "failed"),
    [
        ('{"city": "aa"}', True, True, False),
        (' {"city": "aa", "more": [1]}\n', True, True, False),
        ('Here: {"city": "aa"} as asked', False, True, False),
        ('{"city": 3}', False, False, False),
        ('{"town": "aa"}', False, False, False),
        ("[1, 2]", False, False, False),
        ("3", False, False, False),
        ('{"city": "aa"', False, False, True),
        ("no", False, False, True),
        ("", False, False, True),
    ],
)
def test_output_is_judged_by_its_form(judge: Judge, output: str, strict: bool, lenient: bool, failed: bool) -> None:
    judged = judge(METRIC, output)
    assert (judged.strict, judged.lenient, judged.parse_failure) == (strict, lenient, failed)


@pytest.mark.parametrize("schema", [{"type": "array"}, json.dumps({"type": "array"})])
def test_a_schema_may_stand_in_a_column(judge: Judge, schema: Any) -> None:
    metric = {"name": "json_schema", "column": "form"}
    assert judge(metric, "[1]", form=schema).strict
    assert not judge(metric, "{}", form=schema).lenient


def test_a_column_that_holds_no_schema_is_named(judge: Judge) -> None:
    with pytest.raises(MetricError, match="column 'form': no JSON schema"):
        judge({"name": "json_schema", "column": "form"}, "[1]", form="{")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, 'give "schema", or the "column"'),
        ({"schema": {}, "column": "x"}, 'give "schema", or the "column"'),
        ({"schema": {"type": "objct"}}, "no JSON schema"),
        ({"schema": {"$ref": "http://127.0.0.1:9/x.json"}}, "Retrieval is disabled"),
        ({"schema": {"$ref": "file:///etc/passwd"}}, "no JSON schema"),
        ({"schema": {"pattern": "(?=a)"}}, "no JSON schema"),
    ],
)
def test_a_schema_is_checked_as_the_suite_is_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_task({"name": "json_schema", **settings})


@pytest.mark.parametrize(
    "output",
    [
        json.dumps({"city": "a" * 1_000_000 + "!"}),
        '{"city":' * 100_000,
        "[" * 1_000_000,
        '{"city": ' + "9" * 100_000 + "}",
        '{"city": NaN}',
    ],
    ids=["backtracking", "deep", "deeper", "large number", "no number"],
)
def test_hostile_outputs_are_wrong_and_judged_in_time(judge: Judge, output: str) -> None:
    start = time.perf_counter()
    assert not judge(METRIC, output).strict
    assert time.perf_counter() - start < 5


def test_a_task_keeps_its_schema(judge: Judge) -> None:
    dumped = a_task(METRIC).model_dump(mode="json")
    assert dumped["metric"] == METRIC
    assert a_task(dumped["metric"]).metric == a_task(METRIC).metric
