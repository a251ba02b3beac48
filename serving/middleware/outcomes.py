"""What a server reports by itself of how its answers turned out: whether there is one, is it the JSON or one of the
options asked for, and what a judge says of it.

Only where the operator asks for it, of chat completions and completions for `auto`, whole or streamed. Nothing waits
for it: a part of an answer is looked at after it was sent, and rewards are written by a thread of its own, a batch at a
time, and in the end what waits; of a process that is killed that is lost. No text is kept beyond the judgement, and of
a stream only what is needed is held. An answer above `MOST_CHARACTERS` is not judged where its text is needed, nor one
that is compressed, that the client broke off, that failed, or that the engine gave up. Of more than `HOURLY` decisions
an hour some are judged: which, is settled before they are answered, so that no arm is favoured.

`answered` is 1 where the answer ended by itself (or at a stop sequence) and says something or calls a tool, and 0 where
it ran into its limit of tokens, was filtered or refused, or is empty. `format` is 1 where `response_format` asks for
JSON and the whole answer is JSON (an object, for `json_object`), or where `structured_outputs.choice` lists options and
the answer is one of them, else 0. A schema is not checked, and options are not guessed from the prompt. Of several
choices it is the mean. `judge` is a model's grade (`judge.py`) of a sampled share, where there is one choice that says
something; it is asked by a thread of its own.
"""

import atexit
import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakSet

from starlette.datastructures import Headers
from starlette.types import Message, Send

from ...adapters import DatabaseError, Feedback, FeedbackSource, Location, Registry, RegistryError, ServerError
from ..judge import LONGEST, Judge, shown
from ..profile_snapshot import DecisionToken

JUDGED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""The paths whose answers are judged."""
MOST_CHARACTERS = 256 * 2**10
"""The longest whole answer, line of a stream and text that are looked at."""
MOST_CHOICES = 16
HOURLY, BURST = 1000, 100
"""How many decisions a process judges an hour, and one after the other after a pause."""
MOST_UNDER_WAY = 200
"""How many answers are looked at at a time, for at most so many times `MOST_CHARACTERS`."""
WAITING, WRITE_EVERY_S = 1000, 10.0
"""A write opens the registry and ends with a sync, some 10 ms of processor time: more than all else for a request."""
ENDING_S = 5.0
"""So long a process that ends waits for what is not written yet."""
UNGRADED = 100
"""How many answers wait for the judge at a time; others are not graded."""
_ENDED = frozenset({"stop", "tool_calls", "function_call"})
_CUT = frozenset({"length", "content_filter"})
_logger = logging.getLogger(__name__)

Judgement = Mapping[FeedbackSource, float]
Asked = Literal["json_object", "json_schema"] | frozenset[str]
"""The JSON, or the options, that a request asks for."""


@dataclass
class _Said:
    """One choice of an answer, as far as it has come."""

    ended: str = ""
    speaks: bool = False
    calls: bool = False
    refuses: bool = False
    text: list[str] = field(default_factory=list)


class Answer:
    """An answer that is being sent; `asked` is its format where the text is needed for that, and `request` what the
    judge is shown where it is to be graded.
    """

    def __init__(self, *, streamed: bool, asked: Asked | None, request: str | None = None) -> None:
        self.request = request
        self._streamed = streamed
        self._asked: Asked | None = asked
        self._rest = bytearray()
        self._choices: dict[int, _Said] = {}
        self._characters = 0
        self._lost = False

    def feed(self, part: bytes) -> None:
        """Take a part of the body: of a stream what its complete lines say, else as it is."""
        if self._lost:
            return
        self._rest += part
        if self._streamed:
            *lines, rest = self._rest.split(b"\n")
            self._rest = rest
            for line in lines:
                self._read_line(bytes(line))
        self._lost = self._lost or len(self._rest) > MOST_CHARACTERS

    def judge(self) -> Judgement:
        """The rewards, as far as the answer can be judged: called once, when it is complete."""
        if not self._lost:
            if self._streamed:
                self._read_line(bytes(self._rest))
            else:
                self._read(bytes(self._rest))
        choices = list(self._choices.values())
        if self._lost or not choices or not all(each.ended in _ENDED | _CUT for each in choices):
            return {}
        answered = [each.ended in _ENDED and (each.speaks or each.calls) and not each.refuses for each in choices]
        judgement = {FeedbackSource.ANSWERED: _mean(answered)}
        # What calls a tool was not to be in the format.
        written = [each for each in choices if not each.calls]
        if self._asked is not None and written and self._characters <= MOST_CHARACTERS:
            judgement[FeedbackSource.FORMAT] = _mean([_keeps("".join(each.text), self._asked) for each in written])
        return judgement

    @property
    def text(self) -> str | None:
        """What the judge is shown of it, once it was judged; None where there is nothing to grade."""
        choices = list(self._choices.values())
        if self._lost or len(choices) != 1 or choices[0].calls or choices[0].ended not in _ENDED | {"length"}:
            return None
        return "".join(choices[0].text).strip() or None

    def _read_line(self, line: bytes) -> None:
        if line.startswith(b"data:") and (content := line[5:].strip()) != b"[DONE]":
            self._read(content)

    def _read(self, content: bytes) -> None:
        """Take in an answer, or an event of a stream; one that is none of ours is not judged."""
        try:
            choices = json.loads(content)["choices"]
            for choice in choices:
                self._take(choice)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._lost = True

    def _take(self, choice: Mapping[str, Any]) -> None:
        index = choice.get("index", 0)
        if index not in self._choices and len(self._choices) >= MOST_CHOICES:
            self._lost = True
            return
        said = self._choices.setdefault(index, _Said())
        message: Mapping[str, Any] = choice.get("delta") or choice.get("message") or choice
        text = message.get("content") or message.get("text") or ""
        said.ended = str(choice.get("finish_reason") or said.ended)
        said.speaks = said.speaks or bool(text.strip())
        said.calls = said.calls or bool(message.get("tool_calls") or message.get("function_call"))
        said.refuses = said.refuses or bool(message.get("refusal"))
        self._characters += len(text)
        if self._asked is None and self.request is None:
            return
        if self._characters <= MOST_CHARACTERS:
            said.text.append(text)
        else:
            said.text.clear()


class Outcomes:
    """Judges the answers of one server process for the `sources` that its operator chose, and writes what it finds."""

    def __init__(
        self,
        sources: frozenset[FeedbackSource],
        *,
        judge: Judge | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._judge = judge
        self._clock = clock
        self._left, self._counted = float(BURST), clock()
        self._waiting: queue.Queue[tuple[Location, str, Answer]] = queue.Queue(WAITING)
        # Those that clients break off leave it by themselves.
        self._under_way: WeakSet[Answer] = WeakSet()
        self._ungraded: queue.Queue[tuple[Location, str, str, str]] = queue.Queue(UNGRADED)
        self._threads: dict[str, threading.Thread] = {}
        self._complaints: set[str] = set()
        self._ending = threading.Event()

    def judging(self, send: Send, path: str, request: Mapping[str, Any], token: str, location: Location) -> Send:
        """A `send` by which the answer to a request goes, for the decision of this token, and which judges it then."""
        if path not in JUDGED or not self._sources or not self._has_room():
            return send
        answer: Answer | None = None

        async def judged(message: Message) -> None:
            nonlocal answer
            await send(message)
            if message["type"] == "http.response.start":
                answer = self._begun(message, request)
            elif message["type"] == "http.response.body" and answer is not None:
                answer.feed(message.get("body", b""))
                if not message.get("more_body", False):
                    self._judge_later(location, token, answer)
                    answer = None

        return judged

    def flush(self) -> None:
        """Return when all that was found so far is written, or given up."""
        self._waiting.join()
        self._ungraded.join()

    def end(self) -> None:
        """Write what waits, as the process ends; the judge is not waited for."""
        self._ending.set()
        if self._waiting.unfinished_tasks:
            self._threads[_name(self._write)].join(ENDING_S)

    def _has_room(self) -> bool:
        now = self._clock()
        self._left = min(self._left + (now - self._counted) * HOURLY / 3600, float(BURST))
        self._counted = now
        if self._left < 1 or len(self._under_way) >= MOST_UNDER_WAY:
            return False
        self._left -= 1
        return True

    def _begun(self, start: Message, request: Mapping[str, Any]) -> Answer | None:
        headers = Headers(raw=start["headers"])
        kind = headers.get("content-type", "").partition(";")[0].strip()
        if start["status"] != 200 or "content-encoding" in headers:
            return None
        asked = asked_format(request) if FeedbackSource.FORMAT in self._sources else None
        if kind not in ("application/json", "text/event-stream"):
            return None
        graded = self._judge is not None and random.random() < self._judge.share
        seen = shown(request)[-2 * LONGEST :] if graded else None
        answer = Answer(streamed=kind == "text/event-stream", asked=asked, request=seen)
        self._under_way.add(answer)
        return answer

    def _judge_later(self, location: Location, token: str, answer: Answer) -> None:
        self._put(self._waiting, (location, token, answer), self._write)

    def _put(self, waiting: "queue.Queue[Any]", item: Any, work: Callable[[], None]) -> None:
        """Leave an item to the thread that does this work, which begins with the first one; none waits for room."""
        try:
            waiting.put_nowait(item)
        except queue.Full:
            return
        name = _name(work)
        if name not in self._threads:
            if not self._threads:
                atexit.register(self.end)
            self._threads[name] = threading.Thread(target=work, name=name, daemon=True)
            self._threads[name].start()

    def _write(self) -> None:
        while not (self._ending.is_set() and self._waiting.empty()):
            batch = [self._waiting.get()]
            # Others come meanwhile, and are written with it.
            self._ending.wait(WRITE_EVERY_S)
            while not self._waiting.empty() and len(batch) < WAITING:
                batch.append(self._waiting.get())
            try:
                self._keep(batch[-1][0], [row for _, token, answer in batch for row in self._rows(token, answer)])
                for location, token, answer in batch:
                    if answer.request is not None and (text := answer.text) is not None:
                        self._put(self._ungraded, (location, token, answer.request, text), self._grade)
            finally:
                for _ in batch:
                    self._waiting.task_done()

    def _rows(self, token: str, answer: Answer) -> list[Feedback]:
        decision, judgement = DecisionToken.read(token), answer.judge()
        return [
            decision.rewarded(token, reward, source=source)
            for source, reward in judgement.items()
            if source in self._sources
        ]

    def _grade(self) -> None:
        assert self._judge is not None
        with self._judge.client() as client:
            while True:
                location, token, request, text = self._ungraded.get()
                try:
                    reward = self._judge.grade(client, request, text)
                    if reward is not None:
                        row = DecisionToken.read(token).rewarded(token, reward, source=FeedbackSource.JUDGE)
                        self._keep(location, [row])
                except ServerError as exc:
                    self._complain(f"answers are not graded: {exc}")
                finally:
                    self._ungraded.task_done()

    def _keep(self, location: Location, rows: list[Feedback]) -> None:
        if not rows:
            return
        try:
            with Registry.open(location) as registry:
                registry.put_feedback(*rows)
        except (DatabaseError, RegistryError) as exc:
            self._complain(f"outcomes of answers are not kept: {exc}")

    def _complain(self, trouble: str) -> None:
        """Say each trouble once."""
        if trouble not in self._complaints:
            _logger.warning("traitroute: %s", trouble)
        self._complaints.add(trouble)


def _name(work: Callable[[], None]) -> str:
    return f"traitroute-{work.__name__.strip('_')}-outcomes"


def asked_format(request: Mapping[str, Any]) -> Asked | None:
    """What a request itself asks the server for; None where that is nothing."""
    match request:
        case {"structured_outputs": {"choice": [*options]}} | {"guided_choice": [*options]} if options:
            return frozenset(str(option).strip() for option in options)
        case {"response_format": {"type": "json_object"}}:
            return "json_object"
        case {"response_format": {"type": "json_schema"}}:
            return "json_schema"
        case _:
            return None


def _keeps(text: str, asked: Asked) -> bool:
    return text.strip() in asked if isinstance(asked, frozenset) else _is_json(text, as_object=asked == "json_object")


def _is_json(text: str, *, as_object: bool) -> bool:
    try:
        # Numbers are not computed, so that none is too long; NaN and Infinity are no JSON.
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or not as_object


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _mean(kept: list[bool]) -> float:
    return sum(kept) / len(kept)
