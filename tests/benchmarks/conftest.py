"""A small outcome table whose structure is known."""

import numpy as np
import pytest
from routing.table import OutcomeTable, to_sparse
from traitroute.router.request import RequestTokens

KINDS, GROUPS, ROWS = 3, 24, 24
"""Kinds of requests, each with the adapter that answers it; groups; rows of a data set."""


@pytest.fixture(scope="session")
def made_up() -> OutcomeTable:
    """Kinds of requests by meaning; adapter k answers kind k, the last one half of everything, base a tenth.

    Groups 0 to 3 have two data sets. A data set is asked in three wordings, group 5's in one. Adapters 0 and 1 were
    trained on data sets of groups 0 and 1. Each data set has three requests of an agent, on items of their own.
    """
    rng = np.random.default_rng(0)
    datasets = [(f"set{g}{letter}", f"group{g}", g % KINDS) for g in range(GROUPS) for letter in "ab"[: 1 + (g < 4)]]
    tasks = [(name, of, group, kind, frame) for name, group, kind in datasets for of, frame in _framed(name)]
    requests = [
        (i, j if frame == "main" else ROWS + j, 0 if group == "group5" else j % 3, kind)
        for i, (_, _, group, kind, frame) in enumerate(tasks)
        for j in range(ROWS if frame == "main" else 3)
    ]
    task, item, wording, kind = np.array(requests).T
    meaning = rng.normal(size=(KINDS, 384)) + 0.2 * rng.normal(size=(len(task), KINDS, 384))[:, 0, None]
    sentence = _unit(meaning[np.arange(len(task)), kind] + 0.3 * rng.normal(size=(len(task), 384)))
    right = np.column_stack([np.full((len(task), 1), 0.1), 0.9 * np.eye(KINDS)[kind], np.full((len(task), 1), 0.5)])
    scores = {name: (rng.random(right.shape) < right).astype(np.float16) for name in ("strict", "lenient")}
    adapters = (*(f"adapter{k}" for k in range(KINDS)), "general")
    source = np.repeat(np.arange(len(adapters)), 10)
    prompts = np.concatenate([meaning[0], rng.normal(size=(1, 384))])[source]
    marks = [RequestTokens.read(f"request {i} of a kind") for i in range(len(task))]
    shown = [RequestTokens.read(f"training prompt {i}") for i in range(len(source))]
    return OutcomeTable(
        adapters=adapters,
        trained=("",) * len(adapters),
        weights=("",) * len(adapters),
        homes=(("set0a",), ("set1a",), ("set2a",), ("set0b", "set1b")),
        tasks=tuple(t[1] for t in tasks),
        datasets=tuple(t[0] for t in tasks),
        groups=tuple(t[2] for t in tasks),
        kinds=tuple(t[4] for t in tasks),
        task_digests=("",) * len(tasks),
        source="a model",
        source_digest="",
        task=task.astype(np.int16),
        wording=wording.astype(np.int16),
        row=(1000 * (task // 2) + item).astype(np.uint64),
        digest=rng.integers(256, size=(len(task), 16)).astype(np.uint8),
        **scores,
        metric=(0.5 * (scores["strict"] + right)).astype(np.float16),
        likelihood=np.zeros(right.shape, np.float16),
        gold_probability=np.full(right.shape, np.nan, np.float16),
        output_tokens=np.ones(right.shape, np.uint16),
        arrow=np.full((len(task), 2), -1, np.int8),
        words=to_sparse([m.whole for m in marks]),
        edges=to_sparse([m.edges for m in marks]),
        sentence=sentence.astype(np.float16),
        static=_unit(sentence[:, :256]).astype(np.float16),
        source_adapter=source.astype(np.int16),
        source_sentence=_unit(prompts + 0.3 * rng.normal(size=(len(source), 384))).astype(np.float16),
        source_static=_unit(prompts[:, :256]).astype(np.float16),
        source_words=to_sparse([m.whole for m in shown]),
        source_edges=to_sparse([m.edges for m in shown]),
        source_answers=to_sparse([m.whole for m in shown]),
    )


def _framed(name: str) -> list[tuple[str, str]]:
    return [(name, "main"), (f"{name}-tools", "tools")]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
