"""Chat requests out of a log: one JSON value a line, an array of them, a CSV table, or the lines of vLLM's own log.

Read are, by the keys that hold a request, whatever else stands beside it:

    OpenAI's body, and its batch files        messages; body.messages, response.body.choices
    LiteLLM's StandardLoggingPayload          messages, response, model_parameters.tools
    LiteLLM's spend logs                      messages, or proxy_server_request where these are {}; also as JSON text
    Langfuse's observations                   input (messages, or an object that holds them), output; GENERATION only
    vLLM --enable-log-requests, level DEBUG   Request … JSON body: {…}
    a table that one of these was exported to by the same keys, with objects as JSON texts

A log is as hostile as its senders: a line is read up to `LONGEST_LINE`, an object is searched three levels deep, and a
line that cannot be read is counted, with its number, while the rest is read on.
"""

import csv
import io
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...adapters import SuiteError
from .chat import Chat, answer_text, plain_message, read_chat
from .text_files import LONGEST_LINE, decode_line, json_value

_DEPTH = 3
_WITHIN = ("standard_logging_object", "body", "request", "request_body", "proxy_server_request", "kwargs", "input")
_ANSWERS = ("response", "output", "choices")
_NO_ANSWER = frozenset(("choices", "error", "usage"))
"""Keys of what a server sends when it gives no answer."""
_SETTINGS = ("response_format", "tools")
_VLLM = re.compile(r"Request \S{1,200} JSON body: (\{.*)", re.DOTALL)
_ARRAY = re.compile(rb'(\{\s*"data"\s*:\s*)?\[')
_CHUNK = 2**20


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a log: a `chat` where it is a request, or the `fault` that kept it from being read.

    `asks_json` says that the request's `response_format` asks for JSON. Neither chat nor fault: something else.
    """

    number: int
    chat: Chat | None = None
    asks_json: bool = False
    fault: str = ""


def read_log(
    file: Path, only: Container[int] | None = None, *, on_bytes: Callable[[int], None] = lambda read: None
) -> Iterator[Entry]:
    """The entries of a log in their order, as `read_items` gives them.

    Raises:
        SuiteError: the file cannot be read.
    """
    for number, item in read_items(file, only, on_bytes=on_bytes):
        yield _entry(number, item, f"{file}, line {number}")


def read_items(
    file: Path, only: Container[int] | None = None, *, on_bytes: Callable[[int], None] = lambda read: None
) -> Iterator[tuple[int, Any]]:
    """The values of a log after their numbers, or `only` those of these numbers; lines count from 1, blank ones too.

    A SuiteError stands in the place of one that cannot be read. `on_bytes` is called with the size of each part of the
    file as it is read.

    Raises:
        SuiteError: the file cannot be read.
    """
    try:
        with io.BufferedReader(_Watched(file, on_bytes), _CHUNK) as stream:
            for number, item in _items(stream, file, only):
                if only is None or number in only:
                    yield number, item
    except OSError as exc:
        raise SuiteError(f"{file} cannot be read: {exc.strerror}") from exc


class _Watched(io.FileIO):
    """A file that says how much of it is read."""

    def __init__(self, file: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(file)
        self._on_bytes = on_bytes

    def readinto(self, buffer: Any) -> int:
        """Read what fits, and say how much it was."""
        size = super().readinto(buffer) or 0
        self._on_bytes(size)
        return size


def _items(stream: IO[bytes], file: Path, only: Container[int] | None) -> Iterator[tuple[int, Any]]:
    """The value of each entry, or its fault, after its number."""
    if file.suffix == ".csv":
        return _table(stream, file)
    return _array(stream, file) if _is_array(stream) else _lines(stream, file, only)


def _entry(number: int, item: Any, where: str) -> Entry:
    if isinstance(item, SuiteError):
        return Entry(number, fault=without_place(where, item))
    try:
        request = request_in(item)
        if request is None:
            return Entry(number)
        settings = _settings(item, request)
        chat = read_chat(request["messages"], settings.get("tools"), where)
        answer = chat.answer or _answer(item, where)
        return Entry(number, Chat(chat.messages, chat.tools, answer), _asks_json(settings.get("response_format")))
    except SuiteError as exc:
        return Entry(number, fault=without_place(where, exc))
    except RecursionError:
        return Entry(number, fault="nested too deeply")


def without_place(where: str, exc: Exception) -> str:
    """A message without the place that it begins with."""
    return str(exc).removeprefix(where).lstrip(": ")


def request_in(item: Any) -> Mapping[str, Any] | None:
    """The object that holds a request's `messages`, however it is wrapped; None where there is none."""
    return _request(item, _DEPTH)


def _request(item: Any, depth: int) -> Mapping[str, Any] | None:
    item = from_text(item)
    if isinstance(item, list) and item and isinstance(item[0], Mapping) and "role" in item[0]:
        return {"messages": item}
    if not isinstance(item, Mapping) or item.get("type") in ("SPAN", "EVENT"):
        return None
    if isinstance(turns := from_text(item.get("messages")), list) and turns:
        return item
    if isinstance(prompt := item.get("prompt"), str) and prompt.strip():
        return {**item, "messages": [{"role": "user", "content": prompt}]}
    if item.get("type") == "GENERATION" and isinstance(text := from_text(item.get("input")), str) and text.strip():
        return {"messages": [{"role": "user", "content": text}]}
    inner = (_request(item.get(key), depth - 1) for key in _WITHIN) if depth else ()
    return next((request for request in inner if request is not None), None)


def _settings(item: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """`tools` and `response_format`, which stand beside the messages or among a gateway's parameters."""
    places = [request]
    if isinstance(item, Mapping):
        names = ("model_parameters", "modelParameters", "optional_params")
        places += [place for name in names if isinstance(place := from_text(item.get(name)), Mapping)]
    return {key: place[key] for place in reversed(places) for key in _SETTINGS if place.get(key)}


def _asks_json(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) and wanted.get("type") in ("json_object", "json_schema")


def _answer(item: Any, where: str) -> str:
    """The answer that a log holds beside its request; empty where it holds none that can be read."""
    if not isinstance(item, Mapping):
        return ""
    given = next((value for key in _ANSWERS if (value := item.get(key))), None)
    # An answer may be JSON itself, as text or read by whoever wrote the log.
    read = from_text(given)
    message = _message(read)
    try:
        if message is None and isinstance(read, Mapping) and read.keys() & _NO_ANSWER:
            return ""
        if message is not None:
            text = answer_text(plain_message({"role": "assistant", **message}, where))
        else:
            text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) if given else ""
        text.encode()
    except (SuiteError, UnicodeEncodeError, RecursionError):
        return ""
    return text


def _message(given: Any) -> Mapping[str, Any] | None:
    """The assistant's message in what a server answered, or a gateway wrote of it; None where there is none."""
    for _ in range(_DEPTH + 1):
        if isinstance(given, list) and given:
            given = given[0]
        if not isinstance(given, Mapping):
            return None
        if "content" in given or "tool_calls" in given:
            return given
        given = next((given[key] for key in ("body", "choices", "message") if given.get(key)), None)
    return None


def from_text(value: Any) -> Any:
    """The object or list that a text holds as JSON, as exports of tables have it, or the value itself."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _table(stream: IO[bytes], file: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a table by the number of their last line; what follows a broken one cannot be told apart from it."""
    reader = csv.DictReader(_decoded(stream, file), strict=True)
    usual = csv.field_size_limit(LONGEST_LINE)
    try:
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            uneven = None in row or None in row.values()
            yield reader.line_num, SuiteError(f"{where}: more or fewer cells than the first line") if uneven else row
    except (csv.Error, SuiteError) as exc:
        # A line that has no text was not counted.
        number = reader.line_num + isinstance(exc, SuiteError)
        fault = without_place(f"{file}, line {number}", exc)
        yield number, SuiteError(f"{file}, line {number}: no CSV ({fault}): what follows in the table was not read")
    finally:
        csv.field_size_limit(usual)


def _decoded(stream: IO[bytes], file: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{file}, line {number}"
        if len(line) > LONGEST_LINE:
            raise SuiteError(f"{where}: longer than {LONGEST_LINE // 2**20} MiB")
        yield decode_line(line, where, first=number == 1)


def _lines(stream: IO[bytes], file: Path, only: Container[int] | None) -> Iterator[tuple[int, Any]]:
    """Each line's value after its number; the fault of one that cannot be read stands in its place."""
    number, json_only = 0, None
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if json_only is None and line.strip():
            json_only = _looks_like_json(line.removeprefix(BOM_UTF8))
        where = f"{file}, line {number}"
        if len(line) > LONGEST_LINE:
            _skip_line(stream)
            yield number, SuiteError(f"{where}: longer than {LONGEST_LINE // 2**20} MiB")
        elif line.strip() and (only is None or number in only):
            yield number, _line(line, where, first=number == 1, json_only=bool(json_only))


def _looks_like_json(line: bytes) -> bool:
    return line.lstrip()[:1] in (b"{", b"[")


def _line(line: bytes, where: str, *, first: bool, json_only: bool) -> Any:
    """The value of a line; of a server's own log, which `json_only` is not, the text of what is no request."""
    try:
        text = decode_line(line, where, first=first)
        if not (json_only or _looks_like_json(line)):
            logged = _VLLM.search(text)
            return json_value(logged[1], where) if logged else text
        return json_value(text, where)
    except SuiteError as exc:
        return exc


def _skip_line(stream: IO[bytes]) -> None:
    while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
        pass


def _is_array(stream: IO[bytes]) -> bool:
    """Whether the file is one array of objects, or an API's page of one, and not an array a line."""
    start = stream.read(4096).removeprefix(BOM_UTF8).lstrip()
    stream.seek(0)
    if _ARRAY.match(start) is None:
        return False
    first, _, rest = start.partition(b"\n")
    try:
        return not rest.strip() or json.loads(first) is None
    except (ValueError, RecursionError):
        return True


def _array(stream: IO[bytes], file: Path) -> Iterator[tuple[int, Any]]:
    """The values of one JSON array, read piece by piece; what follows a broken one cannot be told apart from it."""
    decoder, number = json.JSONDecoder(), 0
    buffer = _Buffer(stream)
    try:
        buffer.skip("[")
        while buffer.more():
            number += 1
            yield number, _whole(buffer.value(decoder), f"{file}, line {number}")
    except (ValueError, RecursionError) as exc:
        number = max(number, 1)
        yield number, SuiteError(f"{file}, line {number}: not JSON ({exc}): what follows in the array was not read")


def _whole(value: Any, where: str) -> Any:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return SuiteError(f"{where}: half a character (a lone surrogate)")
    return value


class _Buffer:
    """The text of a stream from the place reached onwards, of which no more is held than one value takes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._text, self._place = stream, "", 0
        self._rest = b""

    def skip(self, mark: str) -> None:
        """Go on behind `mark`."""
        self._read(_CHUNK)
        self._place = self._text.index(mark) + 1

    def more(self) -> bool:
        """Go to the next value; False behind the last one."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\r\n,":
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place] != "]"
            if not self._read(_CHUNK):
                return False

    def value(self, decoder: json.JSONDecoder) -> Any:
        """The value that begins here.

        Raises:
            ValueError: it is not JSON, or longer than a line may be.
        """
        size = _CHUNK
        while True:
            try:
                value, self._place = decoder.raw_decode(self._text, self._place)
                return value
            except json.JSONDecodeError:
                size *= 2
                if size > LONGEST_LINE or not self._read(size):
                    raise

    def _read(self, size: int) -> bool:
        data = self._stream.read(size)
        whole = self._rest + data
        try:
            text, self._rest = whole.decode(), b""
        except UnicodeDecodeError as exc:
            # A character may be cut by the end of what was read.
            if not data or len(whole) - exc.start > 4:
                raise
            text, self._rest = whole[: exc.start].decode(), whole[exc.start :]
        self._text, self._place = self._text[self._place :] + text, 0
        return bool(data)
