"""What a profile would have decided on requests that were asked before, compared with another version or with the log.

Requests are read one at a time and decided a batch at a time; what is kept is counts, so a log may have any length. A
request's constraints are honoured, from its body's `traitroute` object or from `headers` that the log holds beside it,
and every request of a session is decided by the session's first. No text is kept: an example is named by its line and
the first digits of its text's SHA-256.

Each of two versions would choose otherwise, and each says what the other's choice is worth: what changes is valued by
both. Intervals are over the kinds of request (the nearest profiled task, or none): requests of one kind are alike, so
they count as one draw. They say how far another day's mix of kinds may lie, not how wrong a profile is of a kind.
"""

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from scipy.stats import t as student
from starlette.datastructures import Headers

from ..adapters import Adapter, DemandWindow, InputError, SuiteError
from ..router import Router, RoutingProfile, request_text
from ..router.decision import NOVEL
from ..router.request import RequestTokens
from ..router.router import Choices
from ..router.text import says_something
from ..serving.constraints import KEY, Constraints
from ..serving.http.errors import RefusedError
from ..serving.state import AUTO, BASE
from .tasks.request_log import from_text, read_items, request_in, without_place

Array = NDArray[np.float64]
BATCH = 256
EXAMPLES = 10
MOST_FAULTS = 1000
"""So many lines that could not be read are told; all are counted."""
SESSIONS = 10_000
"""So many sessions are remembered, the newest."""
NEW_KIND = "like nothing profiled"
_DIGITS = 16


@dataclass(frozen=True)
class Asked:
    """A request of a log: what is routed, what it asks of routing, and who `answered` it, empty where that is unknown.

    `digest` names its text; the `tokens` are None where it says nothing to route by.
    """

    number: int
    tokens: RequestTokens | None
    digest: str
    wanted: Constraints
    model: str
    answered: str


@dataclass(frozen=True)
class Fault:
    """A line that could not be read, and why; the reason quotes no request."""

    number: int
    reason: str


def read_asked(
    file: Path, known: Collection[str], *, on_bytes: Callable[[int], None] = lambda read: None
) -> Iterator[Asked | Fault | None]:
    """What each entry of a log holds: a request, a fault, or something else (None); `known` are adapters' names.

    Raises:
        SuiteError: the file cannot be read.
    """
    sessions: LRUCache[str, tuple[RequestTokens | None, str]] = LRUCache(SESSIONS)
    for number, item in read_items(file, on_bytes=on_bytes):
        if isinstance(item, SuiteError):
            yield Fault(number, without_place(f"{file}, line {number}", item))
            continue
        try:
            request = _request(item)
            if request is None:
                yield None
                continue
            wanted = _wanted(item, request, known)
            text = request_text(request, last=wanted.reroute)
        except RefusedError as exc:
            yield Fault(number, f"a server refuses this: {exc}")
        except InputError:
            yield Fault(number, "its messages are not in the form of OpenAI's API")
        except RecursionError:
            yield Fault(number, "nested too deeply")
        else:
            # The first request of a session decides for the others.
            read = sessions.get(wanted.session) if wanted.session is not None and not wanted.reroute else None
            read = read or _read(text)
            if wanted.session is not None:
                sessions[wanted.session] = read
            yield Asked(number, *read, wanted, *_models(item))


def _read(text: str) -> tuple[RequestTokens | None, str]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return RequestTokens.read(text) if says_something(text) else None, digest


def _request(item: Any) -> Mapping[str, Any] | None:
    """What holds the messages or the prompt of an entry; None where it is no request."""
    request = request_in(item)
    if request is None and isinstance(item, Mapping):
        body = next((b for key in ("body", "request") if isinstance(b := from_text(item.get(key)), Mapping)), item)
        if body.get("prompt"):
            return {"prompt": body["prompt"]}
        given = body.get("input")
        return {"prompt": given} if isinstance(given, str) else {"messages": given} if given else None
    return request


def _wanted(item: Any, request: Mapping[str, Any], known: Collection[str]) -> Constraints:
    places = [place for place in _bodies(item, request) if isinstance(place, Mapping)]
    body = next((place[KEY] for place in places if place.get(KEY) is not None), None)
    given = next((h for place in places if isinstance(h := place.get("headers"), Mapping)), {})
    headers = Headers({str(name).lower(): value for name, value in given.items() if isinstance(value, str)})
    return Constraints.of(headers, body, known=known)


def _models(item: Any) -> tuple[str, str]:
    """The model that an entry asks for, and the one that its answer names."""
    if not isinstance(item, Mapping):
        return "", ""
    response = from_text(item.get("response"))
    response = response.get("body", response) if isinstance(response, Mapping) else {}
    answered = response.get("model") if isinstance(response, Mapping) else None
    asked = next((m for place in _bodies(item, item) if isinstance(m := place.get("model"), str)), "")
    return asked, answered if isinstance(answered, str) else asked if asked != AUTO else ""


def _bodies(item: Any, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects of an entry that may hold what stands beside the messages."""
    yield request
    if isinstance(item, Mapping):
        yield from (body for key in ("body", "request") if isinstance(body := from_text(item.get(key)), Mapping))
        yield item


@dataclass
class Tally:
    """Requests of one sort, of which some `changed`; gains summed over the `valued` ones, by either version."""

    requests: int = 0
    changed: int = 0
    valued: Array = field(default_factory=lambda: np.zeros(2))
    gains: Array = field(default_factory=lambda: np.zeros(2))

    def add(self, changed: bool, gains: Array) -> None:
        """Count a request; `gains` (2,) are NaN where a version does not know one of the two adapters."""
        self.requests += 1
        self.changed += changed
        self.valued += np.isfinite(gains)
        self.gains += np.nan_to_num(gains)


@dataclass(frozen=True, order=True)
class Example:
    """A decision that changes, and the gain that this is expected to bring."""

    gain: float
    number: int
    digest: str
    before: str
    after: str


@dataclass(frozen=True)
class Expected:
    """The mean gain a request, in score points, and its 95% interval over kinds; None where there are too few."""

    mean: float
    interval: tuple[float, float] | None
    requests: int


class Replay:
    """Counts what changes from `before`, a router or (None) what the log says, to `after`.

    `adapters` are those that constraints choose among, by name; `base` are names by which the base model answered.
    """

    def __init__(
        self, after: Router, before: Router | None, adapters: Mapping[str, Adapter], *, base: Collection[str] = ()
    ) -> None:
        self._after, self._before, self._adapters = after, before, adapters
        self._base = {BASE, *base}
        self.entries = self.requests = self.silent = self.unknown = self.faulty = 0
        self.faults: list[Fault] = []
        self.strangers: Counter[str] = Counter()
        self.kinds: dict[str, Tally] = {}
        self.moves: dict[tuple[str, str], Tally] = {}
        self._examples: list[tuple[float, Example]] = []

    @property
    def compared(self) -> int:
        """How many requests were decided twice."""
        return sum(tally.requests for tally in self.kinds.values())

    @property
    def changed(self) -> int:
        """How many decisions differ."""
        return sum(tally.changed for tally in self.kinds.values())

    @property
    def share(self) -> float:
        """The share of decisions that differ, from 0 to 1."""
        return self.changed / max(self.compared, 1)

    @property
    def examples(self) -> list[Example]:
        """Decisions that change most, by the gain that either version expects, the largest first."""
        return [example for _, example in sorted(self._examples, reverse=True)]

    def run(self, asked: Iterable[Asked | Fault | None], *, only_auto: bool = False) -> None:
        """Count all of these, or with `only_auto` those that asked for it."""
        requests = (each for each in asked if self._counts(each, only_auto))
        while batch := list(itertools.islice(requests, BATCH)):
            self._decide([each for each in batch if isinstance(each, Asked)])

    def run_features(self, rows: Array) -> None:
        """Count requests of which features (n, p) were kept."""
        self.entries += len(rows)
        self.requests += len(rows)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            before = None if self._before is None else self._before.choose(part)
            self._count(
                [Example(0.0, start + i + 1, "", "", "") for i in range(len(part))], self._after.choose(part), before
            )

    def expected(self) -> tuple[Expected, Expected]:
        """What the change is worth a request, by the version before and by the one after."""
        first, second = (self._expected(view) for view in (0, 1))
        return first, second

    def _expected(self, view: int) -> Expected:
        known = [tally for tally in self.kinds.values() if tally.valued[view]]
        counts = np.array([tally.valued[view] for tally in known])
        sums = np.array([tally.gains[view] for tally in known])
        total = float(counts.sum())
        if not total:
            return Expected(0.0, None, 0)
        mean, kinds = float(sums.sum() / total), len(known)
        if kinds < 2:
            return Expected(mean, None, int(total))
        spread = np.sqrt(np.sum((sums - counts * mean) ** 2) * kinds / (kinds - 1)) / total
        reach = float(student.ppf(0.975, kinds - 1) * spread)
        return Expected(mean, (mean - reach, mean + reach), int(total))

    def _counts(self, each: Asked | Fault | None, only_auto: bool) -> bool:
        """Whether an entry is to be decided; it is counted either way."""
        self.entries += 1
        if isinstance(each, Fault):
            self.faulty += 1
            self.faults += [each] if len(self.faults) < MOST_FAULTS else []
        if not isinstance(each, Asked) or (only_auto and each.model != AUTO):
            return False
        self.requests += 1
        if each.tokens is None:
            self.silent += 1
        elif self._before is None and self._answerer(each) is None:
            self.unknown += 1
            if each.answered and (each.answered in self.strangers or len(self.strangers) < MOST_FAULTS):
                self.strangers[each.answered] += 1
        else:
            return True
        return False

    def _answerer(self, asked: Asked) -> str | None:
        """Who answered, by the log: an adapter, base, or None where it is neither."""
        if asked.answered in self._base:
            return BASE
        return asked.answered if asked.answered in self._adapters else None

    def _decide(self, batch: Sequence[Asked]) -> None:
        tokens = [each.tokens for each in batch if each.tokens is not None]
        among = [self._among(each.wanted) for each in batch]
        least = [each.wanted.min_gain for each in batch]
        after = self._after.choose(tokens, among=among, least_gains=least)
        before = None
        if self._before is not None:
            before = self._before.choose(tokens, among=among, least_gains=least)
        places = [Example(0.0, each.number, each.digest, self._answerer(each) or "", "") for each in batch]
        self._count(places, after, before)

    def _among(self, wanted: Constraints) -> frozenset[str] | None:
        if not wanted.limits_adapters:
            return None
        return wanted.among(self._adapters, lambda name: self._adapters[name].tags)

    def _count(self, places: Sequence[Example], after: Choices, before: Choices | None) -> None:
        task_names = self._after.profile.tasks
        for row, place in enumerate(places):
            now = _name(after, row)
            was = place.before if before is None else _name(before, row)
            kind = NEW_KIND if after.novelty[row] >= NOVEL else task_names[after.nearest[row]]
            views = (before, after)
            gains = np.array([_gain(view, row, now) - _gain(view, row, was) for view in views])
            changed = now != was
            self.kinds.setdefault(kind, Tally()).add(changed, gains)
            if changed:
                self.moves.setdefault((was, now), Tally()).add(True, gains)
                self._keep(Example(float(gains[1]), place.number, place.digest, was, now), gains)

    def _keep(self, example: Example, gains: Array) -> None:
        size = float(np.max(np.abs(np.nan_to_num(gains))))
        put = heapq.heappush if len(self._examples) < EXAMPLES else heapq.heappushpop
        put(self._examples, (size, example))


def _name(choices: Choices, row: int) -> str:
    place = choices.chosen[row]
    return BASE if place < 0 else choices.adapters[place]


def _gain(choices: Choices | None, row: int, name: str) -> float:
    """The gain that is predicted of `name`; NaN where it is not known."""
    if choices is None:
        return float("nan")
    if name == BASE:
        return 0.0
    place = choices.places.get(name)
    gain = float("nan") if place is None else float(choices.gains[row, place])
    return gain if np.isfinite(gain) else float("nan")


@dataclass(frozen=True)
class Kept:
    """What servers kept: `rows` of features (n, p), and how many `requests` they routed, of which `novel` ones were
    sampled; `other` windows are of profiles with other features, whose rows these do not fit.
    """

    rows: Array
    requests: int
    novel: int
    other: int

    @classmethod
    def of(cls, windows: Sequence[DemandWindow], lineage: Collection[int], profile: RoutingProfile) -> "Kept":
        """The windows of the profile versions in `lineage`, whose features are those of `profile`."""
        fitting = [window for window in windows if window.profile_version in lineage]
        rows = [rows for window in fitting if (rows := window.rows()).size]
        width = len(profile.centroids[0])
        stacked = np.concatenate(rows) if rows else np.zeros((0, width))
        requests, novel = (sum(values) for values in ([w.requests for w in fitting], [w.novel for w in fitting]))
        return cls(stacked, requests, novel, len(windows) - len(fitting))
