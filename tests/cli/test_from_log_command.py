"""`traitroute tasks from-log`: what it prints of a log, and what bad input is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "requests.jsonl"
    text = "Summarise [bold]this[/bold] letter in one sentence: {}\x1b[2J"
    lines = [json.dumps({"messages": [{"role": "user", "content": text.format(i * 7)}]}) for i in range(30)]
    file.write_text("\n".join([*lines[:4], "{", *lines[4:]]))
    return file


def test_it_says_what_was_found_what_could_not_be_read_and_where_it_lies(run: Run, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    done = run("tasks", "from-log", log, "--out", out, "--rows", 9)
    assert done.returncode == 0, done.stderr
    assert "1 could not be read (line 5: not JSON" in done.stdout
    assert "Summarise [bold]this[/bold]" in done.stdout and "\x1b[2J" not in done.stdout
    assert "30 requests in 31 entries; 30 of them in 1 tasks" in done.stdout
    assert "nothing was sent" in done.stdout
    assert len((out / "summarise-bold-this-letter" / "test.jsonl").read_text().splitlines()) == 9


def test_a_log_that_is_not_there_or_holds_no_requests_is_told(refusal: Run, tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal("tasks", "from-log", tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text('{"level": "info"}\n')
    assert "0 requests in 1 entries" in refusal("tasks", "from-log", tmp_path / "other.jsonl", "--out", tmp_path / "o")


def test_half_a_judge_or_a_wrong_one_is_refused(refusal: Run, log: Path) -> None:
    assert "give --judge MODEL and --judge-url URL" in refusal("tasks", "from-log", log, "--judge", "gpt")
    assert "--judge: metric 'judge': url" in refusal("tasks", "from-log", log, "--judge", "gpt", "--judge-url", "x y")
