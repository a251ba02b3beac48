"""Text files as people have them: what is read, and what is refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import SuiteError
from traitroute.profiling.tasks import text_files
from traitroute.profiling.tasks.text_files import json_lines, parse_yaml, read_text, text_lines


def values(folder: Path, content: bytes) -> list[Any]:
    file = folder / "rows.jsonl"
    file.write_bytes(content)
    return [value for _, value in json_lines(file)]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}',
        b'{"a": 1}\r\n{"a": 2}\r\n',
        b'\n \t\n{"a": 1}\n\n{"a": 2}\n\n',
        b'\xef\xbb\xbf\r\n{"a": 1}\r\n{"a": 2}',
    ],
    ids=["byte-order mark", "CRLF", "blank lines", "mark on a blank line"],
)
def test_what_people_save_is_read(tmp_path: Path, content: bytes) -> None:
    assert values(tmp_path, content) == [{"a": 1}, {"a": 2}]


def test_a_pair_of_escapes_is_one_character_and_odd_line_ends_stay_in_texts(tmp_path: Path) -> None:
    assert values(tmp_path, rb'["\ud83d\ude00"]') == [["\U0001f600"]]
    assert values(tmp_path, '["a\u2028b\u0085c"]'.encode()) == [["a\u2028b\u0085c"]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (rb'{"a": "x \ud83d"}', r"\ud83d is half a character"),
        (rb'{"a": [{"\uDE00": 1}]}', r"\ude00 is half a character"),
        (b'{"a": "\xed\xa0\xbd"}', "not UTF-8 text (invalid continuation byte at byte 8)"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' is given twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": "\x00"}', "holds NUL bytes"),
        (b"9" * 5000, "not JSON: Exceeds the limit"),
        (b'{"a": 1} {"a": 2}', "not JSON: Extra data (column 10)"),
        (b'{"a": "cut sho', "the file ends in this line: was it cut short?"),
        (b'{"a": 1,', "the file ends in this line: was it cut short?"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(tmp_path: Path, bad: bytes, message: str) -> None:
    with pytest.raises(SuiteError) as error:
        values(tmp_path, b'{"a": 1}\n\n' + bad)
    assert "rows.jsonl, line 3: " in str(error.value)
    assert message in str(error.value)


def test_a_bad_line_with_others_after_it_is_not_called_cut_short(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as error:
        values(tmp_path, b'{"a": "cut sho\n{"a": 1}')
    assert "line 1: not JSON" in str(error.value)
    assert "cut short" not in str(error.value)


def test_what_is_wrong_inside_the_last_line_is_not_called_cut_short(tmp_path: Path) -> None:
    for content in (b'{"a": 1, "a": 2}', b'{"a": 1 "b": 2}'):
        with pytest.raises(SuiteError, match="not JSON") as error:
            values(tmp_path, content)
        assert "cut short" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused_with_the_cure(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(SuiteError, match=r"line 1: .*UTF-16.*save it as UTF-8"):
        values(tmp_path, '{"a": 1}\n'.encode(encoding))


def test_an_enormous_line_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 2**20)
    with pytest.raises(SuiteError, match=r"line 2: longer than 1 MiB"):
        values(tmp_path, b"1\n" + b"9" * 2**21)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    with pytest.raises(SuiteError, match="cannot be read: No such file"):
        list(text_lines(tmp_path / "none.txt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' is given twice"),
        ("tasks:\n  - {name: x, name: y}\n", "the key 'name' is given twice"),
        (r'a: "\ud83d"', "half a character"),
        ("a: 2026-99-99", "month must be in 1..12"),
        ("[" * 5000, "nested too deeply"),
        ("{[]: 1}", "unhashable key"),
        ('a: !!int ""', "is not YAML"),
    ],
)
def test_bad_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(SuiteError, match="suite") as error:
        parse_yaml(text, "suite.yaml")
    assert message in str(error.value)


def test_yaml_keeps_anchors_merges_and_json(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: *a, y: 4}\n"
    assert parse_yaml(text, "s")["b"] == {"x": 3, "y": 2}
    assert parse_yaml(json.dumps({"a": "\U0001f600"}), "s") == {"a": "\U0001f600"}
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert parse_yaml(read_text(tmp_path / "s.yaml"), "s") == {"a": 1}
