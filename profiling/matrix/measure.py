"""Measure cells of the transfer matrix: every adapter, and the base model, on every task."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import Adapter, Cell, Outcomes, Registry, SilentAdapterError, packed_texts
from ...serving.engines import Engine, EngineRequest, EngineResult
from ...serving.engines.probe import Effect, EngineProbe
from ..base_model import BaseModelFolder
from ..tasks.task import Example, Task
from .votes import count_votes

MOVED = 0.01
"""Rounding alone changes an answer's likelihood beyond the probe's threshold in fewer examples than this share."""


def measure(
    engine: Engine,
    registry: Registry,
    base: BaseModelFolder,
    adapters: Sequence[Adapter],
    tasks: Sequence[Task],
    *,
    keep_outputs: bool = False,
    on_cell: Callable[[Cell], None] = lambda cell: None,
    on_silent: Callable[[Adapter, SilentAdapterError], None] | None = None,
) -> list[Cell]:
    """Measure the base model and `adapters` on `tasks`; cells already in `registry` are not repeated.

    Tasks that are scored by votes are counted in the end, when all have answered.
    With `keep_outputs` newly measured cells hold the texts too. Each finished cell is committed before the next begins,
    so a killed run loses at most one. Where `on_silent` is given, an adapter that changed nothing is handed to it with
    the error that says so; its row is left out and the others go on.

    Raises:
        SilentAdapterError: an adapter changes nothing beyond noise; its cells are removed.
    """
    rows: list[list[Cell]] = []
    voters: list[Adapter | None] = []
    probe = EngineProbe(engine)
    for adapter in (None, *adapters):
        row = []
        for task in tasks:
            cell = measured_cell(engine, registry, base, adapter, task, keep_outputs=keep_outputs)
            on_cell(cell)
            row.append(cell)
        rows.append(row)
        voters.append(adapter)
        if adapter is None:
            continue
        changes = [Changes.of(cell.outcomes, base.outcomes) for cell, base in zip(row, rows[0], strict=True)]
        try:
            refuse_silence(registry, adapter, probe, changes, [cell.key for cell in row])
        except SilentAdapterError as exc:
            if on_silent is None:
                raise
            del rows[-1], voters[-1]
            on_silent(adapter, exc)
    return [cell for row in count_votes(registry, rows, voters, tasks) for cell in row]


def measured_cell(
    engine: Engine,
    registry: Registry,
    base: BaseModelFolder,
    adapter: Adapter | None,
    task: Task,
    *,
    keep_outputs: bool = False,
) -> Cell:
    """The cell of `adapter` (None: the base model) on `task`: measured and kept, unless `registry` has it already.

    Of several that measure it at a time the first counts.
    """
    key, name = cell_key(base.digest, adapter, task.digest, engine.name), adapter.name if adapter else None
    stored = registry.find_cell(key)
    if stored is None:
        keeps = keep_outputs or (adapter is None and task.metric.against_base)
        by_base = _base_texts(engine, registry, base, task) if adapter is not None else None
        outcomes = measure_cell(engine, adapter, task, base_outputs=by_base, keep_outputs=keeps)
        stored = registry.add_cell(Cell(key, name, task.name, outcomes))
    if (stored.adapter, stored.task) != (name, task.name):
        # Named anew: the cell may have been measured when the same weights had another name.
        stored = replace(stored, adapter=name, task=task.name)
        registry.put_cell(stored)
    return stored


def _base_texts(engine: Engine, registry: Registry, base: BaseModelFolder, task: Task) -> list[str] | None:
    """What the base model wrote on each example, where the task's metric compares with it."""
    return measured_cell(engine, registry, base, None, task).outcomes.texts if task.metric.against_base else None


def cell_key(base_digest: str, adapter: Adapter | None, task_digest: str, engine: str) -> str:
    """Digest of base, weights, task and settings: what determines a cell's outcomes."""
    weights = adapter.weights_digest if adapter else None
    parts = json.dumps([1, base_digest, weights, task_digest, engine])
    return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True)
class Changes:
    """How an adapter's outcomes differ from base's: whether each answer does (n,), and each gold answer's
    log-likelihood, in nats a token (n,); of rows without a gold answer NaN."""

    answers: NDArray[np.bool_]
    likelihoods: NDArray[np.float64]

    @classmethod
    def of(cls, ours: Outcomes, base: Outcomes, places: slice | NDArray[np.int64] = slice(None)) -> Self:
        """The changes of `ours`, which are on the examples of `base` in these places."""
        likelihoods = np.abs(ours.log_likelihood - base.log_likelihood[places]).astype(np.float64)
        answers = ours.output_digest != base.output_digest[places]
        tokens = np.where(ours.target_tokens > 0, ours.target_tokens, np.nan)
        return cls(answers, likelihoods / tokens)


def matches_base(row: Sequence[Cell], base_row: Sequence[Cell]) -> bool:
    """Whether an adapter's outputs equal the base model's on every example of every task."""
    pairs = zip(row, base_row, strict=True)
    return not any(Changes.of(cell.outcomes, base.outcomes).answers.any() for cell, base in pairs)


def refuse_silence(
    registry: Registry, adapter: Adapter, probe: EngineProbe, changes: Sequence[Changes], keys: Sequence[str]
) -> None:
    """Record the adapter's effect on the probe, and refuse an adapter that changes nothing: it was never applied.

    `changes` are those of all examples measured, and `keys` those of the adapter's cells.

    Raises:
        SilentAdapterError: neither the probe nor the examples show that it does anything; its cells are removed.
    """
    effect = Effect.measured(adapter) or probe.effect(adapter)
    why = _silence(changes, effect)
    if why is None:
        if effect is not None and adapter.effect is None:
            registry.set_effect(adapter, effect.nats, effect.noise)
        return
    registry.remove_cells(keys)
    raise SilentAdapterError(
        f"adapter {adapter.name} {why}: it was not applied, or its weights do nothing; its row was not kept. Check its "
        "target modules and train it again"
    )


def _silence(changes: Sequence[Changes], effect: Effect | None) -> str | None:
    """What shows that an adapter changes nothing; None where something shows that it does.

    The classic silent failure of multi-LoRA evaluation. Rounding differs from batch to batch, and so a few answers of
    an adapter that was never applied may differ from base's: where the probe sees no more than noise, the examples'
    own likelihoods decide, for the probe may be blind to what an adapter changes. A few examples on which nothing
    differs do not outweigh a probe that shows a change.
    """
    if effect is not None and effect.is_shown:
        return None
    if not any(each.answers.any() for each in changes):
        return f"answered exactly as the base model on all {sum(len(each.answers) for each in changes)} examples"
    if effect is None:
        return None
    likelihoods = np.concatenate([each.likelihoods for each in changes])
    known = likelihoods[np.isfinite(likelihoods)]
    moved = float(np.mean(known > effect.threshold)) if known.size else 1.0
    if moved > MOVED:
        return None
    return f"changes no more than noise does: {effect}, and likewise on {1 - moved:.1%} of the examples"


def measure_cell(
    engine: Engine,
    adapter: Adapter | None,
    task: Task,
    *,
    base_outputs: Sequence[str] | None = None,
    keep_outputs: bool = False,
) -> Outcomes:
    """Measure `adapter` (None: the base model) on every test example of `task`."""
    examples = task.test_examples
    results = engine.run([request_for(task, e, adapter) for e in examples])
    outcomes = to_outcomes(task, examples, results, base_outputs)
    return replace(outcomes, **packed_texts([r.text for r in results])) if keep_outputs else outcomes


def request_for(task: Task, example: Example, adapter: Adapter | None) -> EngineRequest:
    """The engine request that measures `adapter` on one example of `task`."""
    return EngineRequest(
        messages=example.messages,
        tools=example.tools,
        adapter=adapter,
        max_tokens=task.max_tokens,
        candidates=_candidates(task, example),
    )


def _candidates(task: Task, example: Example) -> tuple[str, ...]:
    """The gold target first, then every label where there are few."""
    return (example.target, *(task.labels if task.lists_labels else ()))


def to_outcomes(
    task: Task, examples: Sequence[Example], results: Sequence[EngineResult], base_outputs: Sequence[str] | None = None
) -> Outcomes:
    """Judge the engine's results on `examples`, in their order, beside what the base model wrote there."""
    judged = task.judge([r.text for r in results], examples, base_outputs)
    label_scores = np.array([r.log_likelihoods[1:] for r in results], dtype=np.float64)
    return Outcomes(
        strict=np.array([j.strict for j in judged], dtype=np.bool_),
        lenient=np.array([j.lenient for j in judged], dtype=np.bool_),
        score=np.array([j.score for j in judged], dtype=np.float32),
        parse_failure=np.array([j.parse_failure for j in judged], dtype=np.bool_),
        log_likelihood=np.array([r.log_likelihoods[0] for r in results], dtype=np.float32),
        target_tokens=np.array([r.candidate_tokens[0] for r in results], dtype=np.int32),
        output_tokens=np.array([r.output_tokens for r in results], dtype=np.int32),
        finish_reason=np.array([r.finish_reason for r in results], dtype=np.uint8),
        predicted_label=np.array([j.label for j in judged], dtype=np.int32),
        output_digest=np.array([text_digest(task.metric.compared(r.text)) for r in results], dtype=np.uint64),
        label_probabilities=_softmax(label_scores).astype(np.float32),
    )


def _softmax(scores: np.ndarray) -> np.ndarray:
    if scores.shape[1] == 0:
        return scores
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def text_digest(text: str) -> int:
    """The digest by which outcomes hold a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
