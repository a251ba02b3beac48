"""The metric `json_schema`: whether an output is JSON of the form that a schema asks for."""

import json
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ....adapters import MetricError
from ..scoring import Judgement
from .metric import Answer, Metric, missing

if TYPE_CHECKING:
    from ..task import Task


class JsonSchema(Metric):
    """JSON that fulfils `schema`, or the schema in the row's column `column`; what it says is not compared.

    strict: the whole output is such JSON. lenient: the first object or list in it is. Parse failure: it holds none.
    Checked by jsonschema-rs, whose patterns take linear time, and which fetches nothing.
    """

    family: ClassVar[str] = "json"
    must_pass: ClassVar[tuple[Literal["answer", "target"], ...]] = ("target",)
    name: str = "json_schema"
    # BaseModel has a method called `schema`.
    form: dict[str, Any] | None = Field(default=None, alias="schema")
    column: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "JsonSchema":
        if (self.form is None) == (self.column is None):
            raise ValueError('give "schema", or the "column" of the rows that holds one')
        if self.form is not None:
            # A missing library is said when something is judged: a suite may be read where nothing is.
            with suppress(ImportError):
                _validator(json.dumps(self.form))
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of schemas."""
        return () if self.column is None else (self.column,)

    def judge_one(self, answer: Answer, task: "Task") -> Judgement:
        """Whether the JSON in the output is valid."""
        output = answer.output.strip()
        found, value, whole = _first_value(output)
        if not found:
            return Judgement(strict=False, lenient=False, parse_failure=True)
        valid = self._valid(value, answer.example.columns)
        return Judgement(strict=valid and whole, lenient=valid, parse_failure=False)

    def _valid(self, value: Any, columns: dict[str, Any]) -> bool:
        given = self.form if self.column is None else columns[self.column]
        # Data sets keep a schema as text as often as not.
        text = given if isinstance(given, str) else json.dumps(given)
        try:
            validator = _validator(text)
        except ValueError as exc:
            raise MetricError(f"the column {self.column!r}: {exc}") from exc
        return validator.is_valid(value)


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """A validator that fetches nothing and runs patterns in linear time.

    Raises:
        ValueError: it is no JSON schema.
    """
    try:
        import jsonschema_rs
    except ImportError as exc:
        raise missing("jsonschema-rs") from exc
    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, jsonschema_rs.ReferencingError, RecursionError) as exc:
        raise ValueError(f"no JSON schema: {str(exc).partition(chr(10))[0][:200]}") from exc


def _first_value(text: str) -> tuple[bool, Any, bool]:
    """Whether the text holds an object or a list, the first one, and whether it is the whole text."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    try:
        return True, json.loads(text), True
    except (ValueError, RecursionError):
        pass
    if not starts:
        return False, None, False
    try:
        return True, json.JSONDecoder().raw_decode(text[min(starts) :])[0], False
    except (ValueError, RecursionError):
        return False, None, False
