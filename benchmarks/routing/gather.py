"""Put measured cells into the outcome table of the routing benchmark: names, digests and marks instead of texts."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing_arrow import read_arrow
from traitroute.adapters import InputError
from traitroute.adapters.adapter import model_name
from traitroute.profiling.analysis.similarity import load_encoder
from traitroute.profiling.tasks.metrics import Example
from traitroute.router import request_text
from traitroute.router.meaning import packaged_encoder
from traitroute.router.request import RequestTokens

from .measured import Columns, Measured
from .plan import Asked, Plan, Source, conversation_digest
from .table import COLUMNS, OutcomeTable, to_sparse

SHOWN = 100
"""So many training rows of an adapter speak for its source in the table."""
Encode = Callable[[Sequence[str]], NDArray[np.floating[Any]]]
ENCODED = 256
"""Texts encoded between two savings of the cache."""


def write_table(plan: Plan, work: Path, file: Path, encode: Encode | None = None) -> None:
    """Put what is measured into the table, beside what it holds of this plan: all adapters and tasks with a cell.

    `encode` turns texts to unit vectors (n, 384); the packaged MiniLM where nothing else is given.

    Raises:
        InputError: nothing is measured, or what is there is of another plan.
    """
    measured = Measured.read(plan, work, file)
    cells = {s and s.name: [measured.cell(s, a) for a in plan.asked] for s in (None, *plan.sources)}
    sources = [s for s in plan.sources if any(cells[s.name])]
    rows = [cells[s and s.name] for s in (None, *sources)]
    kept = [i for i, column in enumerate(zip(*rows, strict=True)) if any(column)]
    asked = [plan.asked[i] for i in kept]
    if not asked:
        raise InputError(f"nothing of the plan is measured in {work} or {file}; run this without --table")
    if not sources:
        raise InputError(f"of the plan only base is measured in {work}: a table is written once an adapter is, too")
    encode = encode or SentenceCache(work / "sentences.npz")
    table = OutcomeTable(
        adapters=tuple(s.name for s in sources),
        trained=tuple(measured.keys[s.name] for s in sources),
        weights=tuple(measured.weights_of(s) for s in sources),
        homes=tuple(s.datasets for s in sources),
        tasks=tuple(a.name for a in asked),
        datasets=tuple(a.dataset for a in asked),
        groups=tuple(a.group for a in asked),
        kinds=tuple(a.kind for a in asked),
        task_digests=tuple(a.digest for a in asked),
        source=model_name(plan.base_model),
        source_digest=measured.base.digest,
        **_requests(asked, encode),
        **_outcomes(asked, [[row[i] for row in rows] for i in kept]),
        arrow=_arrow(asked, work),
        **_sources(sources, encode),
    )
    table.save(file)
    print(
        f"{file}: base and {len(sources)} adapters, {len(asked)} tasks, {len(table)} requests, "
        f"{table.measured.mean():.1%} measured, {file.stat().st_size / 1e6:.1f} MB"
    )


def _requests(asked: Sequence[Asked], encode: Encode) -> dict[str, Any]:
    sent = [c for a in asked for c in a.conversations]
    texts = [request_text({"messages": list(c)}) for c in sent]
    marks = [RequestTokens.read(t) for t in texts]
    places = np.repeat(np.arange(len(asked)), [len(a.conversations) for a in asked])
    return {
        "task": places.astype(np.int16),
        "wording": _wordings(asked),
        "row": np.concatenate([_row_digests(a) for a in asked]),
        "digest": np.array([conversation_digest(c) for c in sent], dtype=np.uint8),
        "words": to_sparse([m.whole for m in marks]),
        "edges": to_sparse([m.edges for m in marks]),
        "sentence": encode(texts).astype(np.float16),
        "static": packaged_encoder().encode(texts).astype(np.float16),
    }


def _outcomes(asked: Sequence[Asked], cells: Sequence[Sequence[Columns | None]]) -> dict[str, Any]:
    def column(name: str, unmeasured: float, dtype: type[np.generic]) -> NDArray[Any]:
        """(n, 1 + adapters) of what the cells hold under `name`."""
        blocks = [
            np.stack([np.full(len(a.conversations), unmeasured) if c is None else c[name] for c in row], axis=1)
            for a, row in zip(asked, cells, strict=True)
        ]
        return np.concatenate(blocks).astype(dtype)

    kept = {name: column(name, np.nan, np.float16) for name in COLUMNS if name != "output_tokens"}
    return kept | {"output_tokens": column("output_tokens", 0, np.uint16)}


def _arrow(asked: Sequence[Asked], work: Path) -> NDArray[np.int8]:
    found = read_arrow(work, [a.name for a in asked if a.kind == "main"])
    parts = [np.full((len(a.conversations), 2), -1, np.int8) for a in asked]
    for part, a in zip(parts, asked, strict=True):
        if a.name in found:
            part[: len(found[a.name])] = found[a.name]
    return np.concatenate(parts)


def _wordings(asked: Sequence[Asked]) -> NDArray[np.int16]:
    """The number of each request's wording among those in which its data set is asked, (n,)."""
    used = {a.dataset: set[str]() for a in asked}
    for a in asked:
        used[a.dataset] |= {r.get("wording", "") for r in a.rows}
    numbers = {dataset: {w: i for i, w in enumerate(sorted(names))} for dataset, names in used.items()}
    return np.array([numbers[a.dataset][r.get("wording", "")] for a in asked for r in a.rows], np.int16)


def _row_digests(asked: Asked) -> NDArray[np.uint64]:
    found = [hashlib.sha256(r.get("item", r["input"]).encode()).digest()[:8] for r in asked.rows]
    return np.frombuffer(b"".join(found), np.uint64)


def _sources(sources: Sequence[Source], encode: Encode) -> dict[str, Any]:
    shown = [_spread(s) for s in sources]
    prompts = [e.prompt for examples in shown for e in examples]
    marks = [RequestTokens.read(p) for p in prompts]
    answers = [RequestTokens.read(e.target).whole for examples in shown for e in examples]
    places = np.repeat(np.arange(len(shown)), [len(e) for e in shown])
    return {
        "source_adapter": places.astype(np.int16),
        "source_sentence": encode(prompts).astype(np.float16),
        "source_static": packaged_encoder().encode(prompts).astype(np.float16),
        "source_words": to_sparse([m.whole for m in marks]),
        "source_edges": to_sparse([m.edges for m in marks]),
        "source_answers": to_sparse(answers),
    }


def _spread(source: Source) -> Sequence[Example]:
    """Some of the training rows, of all data sets: they lie one data set after another."""
    places = np.linspace(0, len(source.examples) - 1, min(SHOWN, len(source.examples)))
    return [source.examples[i] for i in places.astype(int)]


class SentenceCache:
    """The packaged MiniLM, texts to unit vectors (n, 384); what was encoded once is kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, NDArray[np.float16]] = {}
        if file.is_file():
            with np.load(file) as stored:
                self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float16]:
        keys = [hashlib.sha256(t.encode()).hexdigest()[:24] for t in texts]
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._known}
        model = load_encoder(max_tokens=256) if new else None
        while new and model is not None:
            some = dict(islice(new.items(), ENCODED))
            vectors = model.encode(list(some.values()), batch_size=32, normalize_embeddings=True)
            self._known |= dict(zip(some, vectors.astype(np.float16), strict=True))
            self._save()
            new = {k: t for k, t in new.items() if k not in some}
        return np.array([self._known[k] for k in keys], np.float16).reshape(len(keys), -1)

    def _save(self) -> None:
        draft = self._file.with_suffix(".draft.npz")
        np.savez(draft, keys=np.array(list(self._known)), vectors=np.array(list(self._known.values())))
        draft.replace(self._file)
