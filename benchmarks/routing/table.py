"""The outcome table of the routing benchmark: what every adapter did on every request, without the texts.

One safetensors file. Its metadata holds the names; its tensors, with n requests and a adapters:

    task, wording    (n,) index of the task; number of the request's wording among those of its data set
    row              (n,) digest of the item, which several wordings and frames may share
    digest           (n, 16) digest of the messages sent
    strict, lenient  (n, 1 + a) whether the answer was right; column 0 is the base model
    metric           (n, 1 + a) the score of the task's own metric, 0 to 1
    likelihood       (n, 1 + a) log-likelihood of the gold answer, nats a token
    gold_probability (n, 1 + a) share of the gold label among the labels; NaN for tasks without
    output_tokens    (n, 1 + a)
    arrow            (n, 2) whether PEFT's Arrow over all adapters was right, strictly and leniently; -1 unmeasured
    words.*, edges.*   the `RequestTokens` of traitroute.router, read from the routed text
    sentence         (n, 384) MiniLM embedding of the routed text
    static           (n, 256) vector of the routed text by the router's own encoder
    source_*         (s, ...) the same of some training rows of each adapter, `source_adapter` (s,), and its answer's
    words

Adapters are measured one after another, so a table may be partial: scores are NaN, and tokens 0, where a task has not
been measured with an adapter yet. `OutcomeTable.complete` leaves such tasks and adapters out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from traitroute.router.request import N_HASHES, Counts, RequestTokens

SMOLLM2 = Path(__file__).with_name("smollm2.safetensors")
"""The committed table of what measure.yaml asks."""
COLUMNS = ("strict", "lenient", "metric", "likelihood", "gold_probability", "output_tokens")
"""What is measured: these have a column for the base model and each adapter."""
BY_TASK = ("tasks", "datasets", "groups", "kinds", "task_digests")
SPARSE = ("words", "edges", "source_words", "source_edges", "source_answers")


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """The table in memory; see this module for shapes.

    `tasks`, `datasets`, `groups`, `kinds` and `task_digests` go by task; the last are of all that determines a cell but
    the adapter. By adapter go `trained` (the training key), `weights` (their digest, "" where nobody noted it) and
    `homes` (the data sets of its training rows).
    """

    adapters: tuple[str, ...]
    trained: tuple[str, ...]
    weights: tuple[str, ...]
    homes: tuple[tuple[str, ...], ...]
    tasks: tuple[str, ...]
    datasets: tuple[str, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    task_digests: tuple[str, ...]
    source: str
    source_digest: str
    task: NDArray[np.int16]
    wording: NDArray[np.int16]
    row: NDArray[np.uint64]
    digest: NDArray[np.uint8]
    strict: NDArray[np.float16]
    lenient: NDArray[np.float16]
    metric: NDArray[np.float16]
    likelihood: NDArray[np.float16]
    gold_probability: NDArray[np.float16]
    output_tokens: NDArray[np.uint16]
    arrow: NDArray[np.int8]
    words: csr_matrix
    edges: csr_matrix
    sentence: NDArray[np.float16]
    static: NDArray[np.float16]
    source_adapter: NDArray[np.int16]
    source_sentence: NDArray[np.float16]
    source_static: NDArray[np.float16]
    source_words: csr_matrix
    source_edges: csr_matrix
    source_answers: csr_matrix

    def __len__(self) -> int:
        return len(self.task)

    @property
    def kind(self) -> NDArray[np.str_]:
        """The kind of each request's task, (n,)."""
        return np.array(self.kinds)[self.task]

    @property
    def dataset(self) -> NDArray[np.str_]:
        """The data set of each request, (n,)."""
        return np.array(self.datasets)[self.task]

    @property
    def group(self) -> NDArray[np.str_]:
        """The group of each request's data set, (n,): what is held out together."""
        return np.array(self.groups)[self.task]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Whether base, and each adapter, has answered each request, (n, 1 + a)."""
        return ~np.isnan(self.strict)

    @cached_property
    def marks(self) -> NDArray[np.object_]:
        """The requests' marks, (n,) of `RequestTokens`."""
        return _marks(self.words, self.edges, self.static)

    @cached_property
    def source_marks(self) -> NDArray[np.object_]:
        """Marks of the training prompts, (s,) of `RequestTokens`."""
        return _marks(self.source_words, self.source_edges, self.source_static)

    @cached_property
    def source_answer_counts(self) -> list[Counts]:
        """Words of the training answers, one a row."""
        return _rows(self.source_answers)

    def of_adapters(self, kept: NDArray[np.intp]) -> Self:
        """The table with some of its adapters only."""
        rows = np.isin(self.source_adapter, kept)
        place = {int(old): new for new, old in enumerate(kept)}
        columns = np.concatenate([[0], 1 + kept])
        sources = [n for n in self._arrays() if n.startswith("source_")]
        return replace(
            self,
            **{n: tuple(getattr(self, n)[i] for i in kept) for n in ("adapters", "trained", "weights", "homes")},
            **{n: getattr(self, n)[:, columns] for n in COLUMNS},
            **{n: getattr(self, n)[rows] for n in sources if n != "source_adapter"},
            source_adapter=np.array([place[int(a)] for a in self.source_adapter[rows]], np.int16),
        )

    def of_requests(self, kept: NDArray[np.intp]) -> Self:
        """The table with some of its requests, and the tasks that these are of."""
        used, task = np.unique(self.task[kept], return_inverse=True)
        requests = [n for n in self._arrays() if not n.startswith("source_")]
        return replace(
            self,
            **{n: tuple(getattr(self, n)[i] for i in used) for n in BY_TASK},
            **{n: getattr(self, n)[kept] for n in requests if n != "task"},
            task=task.astype(np.int16),
        )

    def complete(self) -> Self:
        """The requests and adapters of which everything is measured: as many cells as can be had."""
        measured = self.measured
        # Adapters in the order of how much is measured with them: each further one may cost requests.
        order = np.argsort(-measured[:, 1:].sum(axis=0), kind="stable")
        answered = np.logical_and.accumulate(measured[:, [0, *(1 + order)]], axis=1)
        count = int(np.argmax(answered.sum(axis=0) * np.arange(len(order) + 1)))
        return self.of_adapters(np.sort(order[:count])).of_requests(np.flatnonzero(answered[:, count]))

    def _arrays(self) -> list[str]:
        return [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray | csr_matrix)]

    def save(self, file: Path) -> None:
        """Write the table."""
        tensors: dict[str, NDArray[Any]] = {}
        names: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if name in SPARSE:
                tensors |= _packed(name, value)
            elif isinstance(value, np.ndarray):
                tensors[name] = np.ascontiguousarray(value)
            else:
                names[name] = value
        save_file(tensors, file, metadata={"traitroute": json.dumps(names)})

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote."""
        with safe_open(file, framework="numpy") as stored:
            names = json.loads(stored.metadata()["traitroute"])
            arrays: dict[str, Any] = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        for name in SPARSE:
            arrays[name] = _unpacked(name, arrays)
        values: dict[str, Any] = {"weights": ("",) * len(names["adapters"])}
        values |= {k: _tuples(v) for k, v in names.items()} | arrays
        return cls(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _marks(words: csr_matrix, edges: csr_matrix, meaning: NDArray[np.float16]) -> NDArray[np.object_]:
    rows = zip(_rows(words), _rows(edges), meaning.astype(np.float32), strict=True)
    marks = np.empty(len(meaning), dtype=object)
    marks[:] = [RequestTokens(*row) for row in rows]
    return marks


def to_sparse(counts: Sequence[Counts]) -> csr_matrix:
    """One row a text, (n, N_HASHES)."""
    ends = np.cumsum([0, *(len(c.places) for c in counts)])
    places = np.concatenate([c.places for c in counts])
    return csr_matrix((np.concatenate([c.counts for c in counts]), places, ends), shape=(len(counts), N_HASHES))


def _rows(matrix: csr_matrix) -> list[Counts]:
    parts = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    return [Counts(matrix.indices[a:b].astype(np.int64), matrix.data[a:b]) for a, b in parts]


def _packed(name: str, matrix: csr_matrix) -> dict[str, NDArray[Any]]:
    return {
        f"{name}.counts": np.minimum(matrix.data, 255).astype(np.uint8),
        f"{name}.places": matrix.indices.astype(np.uint16),
        f"{name}.ends": matrix.indptr.astype(np.int32),
        f"{name}.width": np.array([matrix.shape[1]], np.int32),
    }


def _unpacked(name: str, arrays: dict[str, Any]) -> csr_matrix:
    counts, places, ends, width = (arrays.pop(f"{name}.{part}") for part in ("counts", "places", "ends", "width"))
    shape = (len(ends) - 1, int(width[0]))
    return csr_matrix((counts.astype(np.float64), places.astype(np.int32), ends), shape=shape)


def chosen(names: str, known: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The entries named, or all; an unknown name ends the program with those that are known."""
    wanted = [n.strip() for n in names.split(",") if n.strip()] or list(known)
    if lost := [n for n in wanted if n not in known]:
        raise SystemExit(f"no {kind} {lost[0]!r}; there are: {', '.join(known)}")
    return {n: known[n] for n in wanted}


def load(file: Path) -> OutcomeTable:
    """Read the table, or end the program with what to run."""
    try:
        return OutcomeTable.load(file)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as exc:
        raise SystemExit(
            f"{file} holds no outcome table ({exc}); write one with benchmarks/outcomes.py --data FOLDER"
        ) from exc
