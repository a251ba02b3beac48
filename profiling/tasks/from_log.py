"""Tasks from a log of requests: grouped by template, sampled, and written as a suite of folders of rows.

The log is read twice: once for a sample of the texts, which are grouped, and once for the rows that were chosen, which
are written one by one. So memory is bounded, however long the log is. Nothing is sent anywhere. What is written holds
users' texts, as the log does: for the owner's eyes only (mode 0600), and all of it or nothing.

Nobody has said what a right answer is. So a task is judged by what can be told without one, and the suite says by what.
"""

import json
import os
import random
import re
import shutil
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ...adapters import InputError, SuiteError, check_name
from ...router.text import says_something
from .chat import Chat
from .metrics.format import ASKS_JSON, is_json, options_in
from .metrics.judge import Judge
from .request_log import Entry, read_log
from .templates import cut, group_by_template, template_words

SAMPLE = 20_000
MOST = 0.8
"""A task asks for a format where so many of its requests do, and its answers in the log keep it, if there are any."""
LONGEST_ROW = 200_000
"""Characters of a request; no adapter answers one that is as long as that."""
Judged = Literal["json", "option", "judge", "log", "nothing"]
"""By what the answers to a task's requests are told good from bad; see `JUDGED`."""
EXAMPLES = 3
SUITE = "suite.yaml"


@dataclass(frozen=True)
class Judging:
    """A way to tell answers: as a suite gives it (`metric`), in a word or two (`short`), and in full (`told`)."""

    metric: Any
    short: str
    told: str


JUDGED: Mapping[Judged, Judging] = {
    "json": Judging({"name": "format", "asked": "json"}, "JSON kept", "whether an answer is JSON, as was asked"),
    "option": Judging(
        {"name": "format", "asked": "option"}, "option named", "whether an answer names one of the options listed"
    ),
    "judge": Judging(None, "a judge", "which answer the judge prefers, an adapter's or the base model's"),
    "log": Judging("f1", "logged answers", "likeness to the answers in the log, which nobody has checked"),
    "nothing": Judging(
        {"name": "format", "asked": "text"},
        "nothing yet",
        "whether there is an answer at all: give it a judge, or, where answers are short, agreement (docs/metrics.md)",
    ),
}
SHOWN = 160


@dataclass
class Reading:
    """What was found in a log: `entries` in all, of them `requests`, and the first few `faults` by their numbers."""

    entries: int = 0
    requests: int = 0
    too_long: int = 0
    faulty: int = 0
    faults: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogTask:
    """One template's requests: `count` of them in the whole log (an estimate beyond `SAMPLE`), and `examples`.

    `rows` of them were written, whose answers are to have up to `max_tokens` tokens.
    """

    name: str
    count: int
    examples: tuple[str, ...]
    judged: Judged
    rows: int
    max_tokens: int


@dataclass(frozen=True)
class _Request:
    number: int
    text: str
    system: str
    json: bool
    options: bool
    answer_chars: int
    kept: bool

    def has_what(self, judged: Judged) -> bool:
        """Whether there is what an answer to it would be judged by."""
        return self.options if judged == "option" else judged != "log" or self.answer_chars > 0


def tasks_from_log(
    file: Path,
    out: Path,
    *,
    rows: int = 100,
    fewest: int = 20,
    most: int = 40,
    seed: int = 0,
    sample: int = SAMPLE,
    judge: Judge | None = None,
    on_bytes: Callable[[int], None] = lambda read: None,
) -> tuple[list[LogTask], Reading]:
    """Write the tasks of a log into the new folder `out`: `suite.yaml`, and `<task>/test.jsonl` of up to `rows` rows.

    The `most` largest templates of at least `fewest` requests become tasks. `sample` requests are grouped, drawn by
    `seed`.

    What no format tells is left to `judge`, where there is one; it is not asked here. `on_bytes` is called with the
    size of each part of the file as it is read, twice in all.

    Raises:
        SuiteError: the log cannot be read, or holds no such template.
        InputError: `out` is there already.
    """
    if out.exists():
        raise InputError(f"{out} is there already: name another folder with --out, or remove it")
    requests, reading = _sampled(file, sample, random.Random(seed), on_bytes)
    scale = reading.requests / max(len(requests), 1)
    groups = _grouped(requests, fewest / max(scale, 1), seed)[:most]
    if not groups:
        raise SuiteError(
            f"{file}: {reading.requests} requests in {reading.entries} entries, and no template that {fewest} of them "
            f"share; {first_fault(reading) or 'all could be read'}: give a longer log, or a smaller --fewest"
        )
    named = dict(zip(_names(groups), groups, strict=True))
    tasks = [_task(name, group, scale, rows, judge) for name, group in named.items()]
    draw = random.Random(seed)
    chosen = {number: task.name for task in tasks for number in _chosen(named[task.name], task, draw)}
    with _new_folder(out) as folder:
        _write_rows(file, folder, chosen, on_bytes)
        _write_private(folder / SUITE, _suite(file, out, tasks, reading, seed, judge))
    return tasks, reading


def _sampled(
    file: Path, sample: int, draw: random.Random, on_bytes: Callable[[int], None]
) -> tuple[list[_Request], Reading]:
    """A sample of the log's requests in which each is as likely as any other, in the order of the log."""
    reading, kept = Reading(), list[_Request]()
    for entry in read_log(file, on_bytes=on_bytes):
        reading.entries += 1
        if entry.fault:
            reading.faulty += 1
            if len(reading.faults) < EXAMPLES:
                reading.faults[entry.number] = entry.fault
        if entry.chat is None:
            continue
        if _size(entry.chat) > LONGEST_ROW:
            reading.too_long += 1
            continue
        reading.requests += 1
        place = len(kept) if len(kept) < sample else draw.randrange(reading.requests)
        if place < sample:
            kept[place : place + 1] = [_request(entry, entry.chat)]
    return sorted(kept, key=lambda request: request.number), reading


def _size(chat: Chat) -> int:
    return sum(len(message["content"]) for message in chat.messages) + len(chat.answer)


def _request(entry: Entry, chat: Chat) -> _Request:
    system = "\n".join(m["content"] for m in chat.messages if m["role"] == "system")
    users = (m["content"] for m in chat.messages if m["role"] == "user")
    # The first turn that says something, as the router reads it: it stays the same through a conversation.
    text = next(filter(says_something, users), "")
    asks_json = entry.asks_json or ASKS_JSON.search(text + system) is not None
    options = options_in(cut(chat.asked))
    kept = not chat.answer or (is_json(chat.answer) if asks_json else _names_one(chat.answer, options))
    return _Request(entry.number, cut(text), system[:1_000], asks_json, bool(options), len(chat.answer.strip()), kept)


def _names_one(answer: str, options: Sequence[str]) -> bool:
    folded = answer.casefold()
    return any(option.casefold() in folded for option in options)


def _grouped(requests: Sequence[_Request], fewest: float, seed: int) -> list[list[_Request]]:
    """The requests by template, the largest group first; what users write freely, by the system prompt it came with."""
    groups = _by_texts(requests, lambda request: request.text, seed)
    large = [group for number, group in groups.items() if number >= 0 and len(group) >= fewest]
    used = {request.number for group in large for request in group}
    free = [request for request in requests if request.system and request.number not in used]
    by_system = _by_texts(free, lambda request: request.system, seed)
    large += [group for number, group in by_system.items() if number >= 0 and len(group) >= fewest]
    return sorted(large, key=len, reverse=True)


def _by_texts(requests: Sequence[_Request], text_of: Callable[[_Request], str], seed: int) -> dict[int, list[_Request]]:
    # Each text once: what is sent again and again would pass for a template of its own.
    texts = list(dict.fromkeys(map(text_of, requests)))
    group = dict(zip(texts, group_by_template(texts, seed=seed).tolist(), strict=True))
    if len(texts) == 1:
        group = {texts[0]: 0}
    grouped = defaultdict[int, list[_Request]](list)
    for request in requests:
        grouped[group[text_of(request)]].append(request)
    return dict(grouped)


def _names(groups: Sequence[Sequence[_Request]]) -> list[str]:
    """A name for each group, of words of its template: none that only a few users wrote."""
    names, used = list[str](), Counter[str]()
    for group in groups:
        words = template_words(list(dict.fromkeys(request.text for request in group)))
        words = words or template_words([request.system for request in group])
        slug = _slug(words)
        used[slug] += 1
        names.append(slug if used[slug] == 1 else f"{slug}-{used[slug]}")
    return names


def _slug(words: Sequence[str]) -> str:
    plain = (unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode() for word in words)
    slug = "-".join(part[:14] for word in plain if (part := re.sub(r"[^a-z0-9]", "", word)))
    try:
        return check_name(slug)
    except ValueError:
        return f"requests-{slug}".rstrip("-")


def _task(name: str, group: Sequence[_Request], scale: float, rows: int, judge: Judge | None) -> LogTask:
    texts = list(dict.fromkeys(request.text for request in group))
    spread = [texts[len(texts) * i // EXAMPLES] for i in range(min(EXAMPLES, len(texts)))]
    judged = _judged(group, judge)
    fit = len({request.text for request in group if request.has_what(judged)})
    return LogTask(
        name=name,
        count=round(len(group) * scale),
        examples=tuple(_line(text) for text in spread),
        judged=judged,
        rows=min(rows, fit),
        max_tokens=_max_tokens(group, judged),
    )


def _line(text: str) -> str:
    """The ends of a text on one line, without characters that a terminal would obey."""
    return ends("".join(c if c.isprintable() else " " for c in " ".join(text.split())), SHOWN)


def ends(text: str, most: int) -> str:
    """A text of at most so many characters, or its two ends where it is longer."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def _judged(group: Sequence[_Request], judge: Judge | None) -> Judged:
    answered = [request for request in group if request.answer_chars]
    held = not answered or sum(request.kept for request in answered) >= MOST * len(answered)
    if held and sum(request.json for request in group) >= MOST * len(group):
        return "json"
    if held and sum(request.options for request in group) >= MOST * len(group):
        return "option"
    if judge is not None:
        return "judge"
    return "log" if len(answered) >= MOST * len(group) else "nothing"


def _max_tokens(group: Sequence[_Request], judged: Judged) -> int:
    """Enough for 95% of the answers in the log, at three characters a token; without any, a guess."""
    lengths = sorted(request.answer_chars for request in group if request.answer_chars)
    if not lengths:
        return 32 if judged == "option" else 256
    return min(1_024, 8 + lengths[int(0.95 * (len(lengths) - 1))] // 3)


def _chosen(group: Sequence[_Request], task: LogTask, draw: random.Random) -> list[int]:
    """The numbers of the requests that become rows: of equal texts one."""
    distinct = {request.text: request.number for request in group if request.has_what(task.judged)}
    return draw.sample(list(distinct.values()), task.rows)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when it is whole; nothing is left of it when it is not.

    Raises:
        InputError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # The owner's alone, as mkdtemp makes it.
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            yield draft
            draft.rename(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as exc:
        raise InputError(f"{out} cannot be written: {exc.strerror}: name another folder with --out") from exc


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as stream:
        stream.write(text)


def _write_rows(file: Path, folder: Path, chosen: Mapping[int, str], on_bytes: Callable[[int], None]) -> None:
    written = 0
    for entry in read_log(file, only=chosen, on_bytes=on_bytes):
        if (chat := entry.chat) is None:
            break
        row: dict[str, Any] = {"messages": chat.messages, "logged": chat.answer}
        row |= {"tools": chat.tools} if chat.tools else {}
        row |= {"options": options} if (options := options_in(cut(chat.asked))) else {}
        place = folder / chosen[entry.number]
        place.mkdir(mode=0o700, exist_ok=True)
        _write_private(place / "test.jsonl", json.dumps(row, ensure_ascii=False) + "\n")
        written += 1
    if written < len(chosen):
        raise SuiteError(f"{file} changed while it was read: nothing was written; give a copy that stays as it is")


def _suite(file: Path, out: Path, tasks: Sequence[LogTask], reading: Reading, seed: int, judge: Judge | None) -> str:
    """The suite as YAML, with what names the tasks beside them as comments."""
    lines = [
        f"# {len(tasks)} tasks from {reading.requests} requests of {_line(file.name)}; seed {seed}.",
        "# Like the log, this folder holds what users wrote: keep it where the log may be kept.",
        "# No task has right answers: what its metric tells is said beside it. Rename tasks and their folders freely.",
        f"name: {_slug(re.findall(r'[a-z0-9]+', out.name.lower())[:4])}",
        "tasks:",
    ]
    for task in tasks:
        judging = JUDGED[task.judged]
        given = {
            "name": task.name,
            "rows": {"folder": str(out.resolve())},
            "target": "{{ logged }}",
            "answer": "{{ logged }}",
            "metric": judge.setting if judge and task.judged == "judge" else judging.metric,
            "train": 0,
            "test": task.rows,
            "max_tokens": task.max_tokens,
        }
        lines += ["", f"# {task.count} requests, unlabelled; judged by {judging.told}."]
        lines += [f"#   {example}" for example in task.examples]
        lines += ["- " + yaml.safe_dump(given, sort_keys=False, allow_unicode=True).rstrip().replace("\n", "\n  ")]
    return "\n".join(lines) + "\n"


def first_fault(reading: Reading) -> str:
    """How many entries of a log could not be read, and why not the first of them; empty where all could."""
    if not reading.faulty:
        return ""
    shown = "; ".join(f"line {number}: {fault}" for number, fault in reading.faults.items())
    return f"{reading.faulty} could not be read ({shown}{'; …' if reading.faulty > len(reading.faults) else ''})"
