"""Text files that people give, read strictly: UTF-8, one JSON value a line, or YAML; every error names file and line.

Strictly, because what a lenient reader accepts ends in a wrong model: half a character, a key that silently replaces
another, a line that was cut short.
"""

import codecs
import json
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ...adapters import SuiteError

SHOWN_ERRORS = 5
LONGEST_LINE = 16 * 2**20
"""Bytes: no model reads a prompt and answer as long as that."""


def read_text(file: Path) -> str:
    """The whole text, without its byte-order mark.

    Raises:
        SuiteError: it cannot be read, or is not UTF-8.
    """
    return "".join(text for _, text in numbered_lines(file))


def text_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, each after its place (file and line) for messages.

    Raises:
        SuiteError: it cannot be read, is not UTF-8, or is too long.
    """
    return ((where, text) for where, text in numbered_lines(file) if text.strip())


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """The value of every line that is not blank, each after its place (file and line) for messages.

    Raises:
        SuiteError: the file cannot be read, or a line is not JSON.
    """
    return ((where, json_value(text, where)) for where, text in text_lines(file))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text.

    Raises:
        SuiteError: it is not YAML, gives a key twice, or holds half a character.
    """
    return _of_yaml(yaml.load, text, where)


def check_yaml(text: str, where: str) -> None:
    """Check that `text` is YAML, without reading its tags and values, which may be another program's own.

    Raises:
        SuiteError: it is not, gives a key twice, or holds half a character.
    """
    _of_yaml(yaml.compose, text, where)


def _of_yaml(read: Callable[[str, Any], Any], text: str, where: str) -> Any:
    try:
        return read(text, _StrictLoader)
    except RecursionError as exc:
        raise SuiteError(f"{where}: nested too deeply: give it flatter") from exc
    # The loader's own conversions raise the last three, for the date 2026-99-99 for instance.
    except (yaml.YAMLError, ValueError, LookupError, TypeError) as exc:
        raise SuiteError(f"{where} is not YAML: {exc}") from exc


def numbered_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Every line after its place (file and line) for messages.

    Raises:
        SuiteError: it cannot be read, is not UTF-8, or is too long.
    """
    number = 0
    try:
        with file.open("rb") as stream:
            while line := stream.readline(LONGEST_LINE + 1):
                number += 1
                where = f"{file}, line {number}"
                if len(line) > LONGEST_LINE:
                    raise SuiteError(f"{where}: longer than {LONGEST_LINE // 2**20} MiB: give one row a line")
                yield where, decode_line(line, where, first=number == 1)
    except OSError as exc:
        raise SuiteError(f"{file} cannot be read: {exc.strerror}") from exc


def decode_line(line: bytes, where: str, *, first: bool) -> str:
    """The text of a line, the `first` of its file without a byte-order mark.

    Raises:
        SuiteError: it is not UTF-8.
    """
    if first and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SuiteError(f"{where}: the file is UTF-16: save it as UTF-8")
    if b"\0" in line:
        raise SuiteError(f"{where}: holds NUL bytes: text has none; if the file is UTF-16, save it as UTF-8")
    try:
        return line.removeprefix(codecs.BOM_UTF8 if first else b"").decode("utf-8")
    except UnicodeDecodeError as exc:
        raise SuiteError(
            f"{where}: not UTF-8 text ({exc.reason} at byte {exc.start + 1}): save the file as UTF-8"
        ) from exc


def json_value(text: str, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        SuiteError: it is not JSON, gives a key twice, is nested too deeply, or holds half a character.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
        # JSON may name half a character; no tokenizer takes it.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as exc:
        raise SuiteError(f"{where}: nested too deeply: give it flatter") from exc
    except UnicodeEncodeError as exc:
        half = f"\\u{ord(exc.object[exc.start]):04x}"
        raise SuiteError(
            f"{where}: {half} is half a character (a lone surrogate): the text was cut inside an emoji "
            "or the like; write the whole character, or take it out"
        ) from exc
    except json.JSONDecodeError as exc:
        ends = exc.msg.startswith("Unterminated") or exc.pos >= len(text.rstrip())
        last = ends and not text.endswith("\n")
        cut = "; the file ends in this line: was it cut short?" if last else ""
        raise SuiteError(f"{where}: not JSON: {exc.msg} (column {exc.colno}){cut}") from exc
    except ValueError as exc:
        raise SuiteError(f"{where}: not JSON: {exc}") from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:80]!r} is given twice")
        values[key] = value
    return values


class _StrictLoader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys, and JSON's pairs of surrogates for two characters."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as exc:
            raise yaml.MarkedYAMLError(
                problem="half a character (a lone surrogate)", problem_mark=node.start_mark
            ) from exc
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value[:80]!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


def explained(exc: ValidationError, where: str) -> str:
    """What is wrong with a file's values, key by key: the first few, in one line."""

    def line(error: Any) -> str:
        key = ".".join(str(part) for part in error["loc"]) or "suite"
        # By reprlib: YAML can say in a few lines what takes gigabytes to print.
        given = reprlib.repr(error["input"])[:80]
        return f"{key}: {error['msg'].removeprefix('Value error, ')} (given: {given})"

    errors = exc.errors()
    more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return f"{where}: " + "; ".join(line(e) for e in errors[:SHOWN_ERRORS]) + more
