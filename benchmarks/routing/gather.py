"""Put measured cells into the outcome table of the routing benchmark: names, digests and marks instead of texts."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing_arrow import read_arrow
from traitroute.adapters import Outcomes
from traitroute.profiling import Task
from traitroute.profiling.analysis.similarity import load_encoder
from traitroute.router import request_text
from traitroute.router.request import RequestTokens

from .plan import Asked, Plan, cell_file, conversation_digest, read_cell
from .table import OutcomeTable, to_sparse

SHOWN = 100
"""So many training rows of an adapter speak for its source in the table."""


def write_table(plan: Plan, work: Path, file: Path) -> None:
    """Put what is measured into the table: adapters and tasks of which every cell is there."""
    main = [a for a in plan.asked if a.kind == "main"]
    sources = [t for t in plan.sources if all(cell_file(work, t.name, a).is_file() for a in main)]
    rows = [None, *(t.name for t in sources)]
    asked = [a for a in plan.asked if all(cell_file(work, r, a).is_file() for r in rows)]
    encode = SentenceCache(work / "sentences.npz")
    table = OutcomeTable(
        adapters=tuple(t.name for t in sources),
        tasks=tuple(a.name for a in asked),
        datasets=tuple(a.dataset for a in asked),
        kinds=tuple(a.kind for a in asked),
        source=plan.suite.base_model,
        **_requests(asked, encode),
        **_outcomes(asked, [[read_cell(cell_file(work, r, a)) for r in rows] for a in asked]),
        arrow=_arrow(asked, work),
        **_sources(sources, encode),
    )
    table.save(file)
    print(f"{file}: {len(sources)} adapters, {len(asked)} tasks, {len(table)} requests")


def _requests(asked: Sequence[Asked], encode: "SentenceCache") -> dict[str, Any]:
    sent = [c for a in asked for c in a.conversations]
    texts = [request_text({"messages": list(c)}) for c in sent]
    marks = [RequestTokens.read(t) for t in texts]
    places = np.repeat(np.arange(len(asked)), [len(a.conversations) for a in asked])
    return {
        "task": places.astype(np.int16),
        "row": np.concatenate([_row_digests(a) for a in asked]),
        "digest": np.array([conversation_digest(c) for c in sent], dtype=np.uint8),
        "surface": np.array([m.surface for m in marks], dtype=np.float32),
        "words": to_sparse([m.whole for m in marks]),
        "edges": to_sparse([m.edges for m in marks]),
        "sentence": encode(texts).astype(np.float16),
    }


def _outcomes(asked: Sequence[Asked], cells: Sequence[Sequence[Outcomes]]) -> dict[str, Any]:
    def column(read: Callable[[Outcomes, int], NDArray[Any]]) -> NDArray[Any]:
        """(n, 1 + adapters) of what `read` takes from a cell, given its task's place."""
        return np.concatenate([np.stack([read(c, i) for c in row], axis=1) for i, row in enumerate(cells)])

    likelihood = column(lambda c, i: c.log_likelihood / np.maximum(c.target_tokens, 1))
    gold = column(lambda c, i: _gold_probability(asked[i].task, c))
    return {
        "strict": column(lambda c, i: c.strict),
        "lenient": column(lambda c, i: c.lenient),
        "likelihood": likelihood.astype(np.float16),
        "gold_probability": gold.astype(np.float16),
        "output_tokens": column(lambda c, i: c.output_tokens).astype(np.uint16),
    }


def _arrow(asked: Sequence[Asked], work: Path) -> NDArray[np.int8]:
    found = read_arrow(work, [a.name for a in asked if a.kind == "main"])
    parts = [np.full((len(a.conversations), 2), -1, np.int8) for a in asked]
    for part, a in zip(parts, asked, strict=True):
        if a.name in found:
            part[: len(found[a.name])] = found[a.name]
    return np.concatenate(parts)


def _sources(sources: Sequence[Task], encode: "SentenceCache") -> dict[str, Any]:
    shown = [t.training_examples[:SHOWN] for t in sources]
    prompts = [e.prompt for examples in shown for e in examples]
    marks = [RequestTokens.read(p) for p in prompts]
    answers = [RequestTokens.read(e.target).whole for examples in shown for e in examples]
    places = np.repeat(np.arange(len(shown)), [len(e) for e in shown])
    return {
        "source_adapter": places.astype(np.int16),
        "source_surface": np.array([m.surface for m in marks], dtype=np.float32),
        "source_sentence": encode(prompts).astype(np.float16),
        "source_words": to_sparse([m.whole for m in marks]),
        "source_edges": to_sparse([m.edges for m in marks]),
        "source_answers": to_sparse(answers),
    }


class SentenceCache:
    """The packaged MiniLM, texts to unit vectors (n, 384); what was encoded once is kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, NDArray[np.float32]] = dict(np.load(file)) if file.is_file() else {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        keys = [hashlib.sha256(t.encode()).hexdigest()[:24] for t in texts]
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._known}
        if new:
            model = load_encoder(max_tokens=256)
            vectors = model.encode(list(new.values()), batch_size=32, normalize_embeddings=True)
            self._known |= dict(zip(new, vectors, strict=True))
            np.savez(self._file, **self._known)  # pyright: ignore[reportArgumentType]
        return np.array([self._known[k] for k in keys])


def _gold_probability(task: Task, cell: Outcomes) -> NDArray[np.float32]:
    if not cell.label_probabilities.shape[1]:
        return np.full(len(cell), np.nan, np.float32)
    gold = [task.labels.index(e.answer) for e in task.test_examples]
    return cell.label_probabilities[np.arange(len(cell)), gold]


def _row_digests(asked: Asked) -> NDArray[np.uint64]:
    task = asked.task
    rows = task.rows.load(task.name, "test", task.test, seed=task.seed)
    found = [hashlib.sha256(r["input"].encode()).digest()[:8] for r in rows]
    return np.frombuffer(b"".join(found), np.uint64)
