"""Cells measured by an executor, a chunk of a row at a time, each on an engine that its process keeps open.

The registry has the truth: what is there is not measured again, and what is missing in the end, of whatever cause, is
measured by whoever reads it, here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Self

from ...adapters import Adapter, InputError, Registry
from ...serving import EngineName, open_engine
from ...serving.engines import Engine, EngineRequest, EngineResult
from ...serving.engines.probe import EngineProbe
from ..base_model import BaseModelFolder
from ..execution.executor import Executor, Report, UnfitMachineError
from ..execution.terms import Terms
from ..tasks.task import Task
from .everyday import spared
from .measure import cell_key, measured_cell

Row = tuple[Adapter | None, Sequence[Task]]
"""An adapter (None: base) and the tasks that it is measured on."""
CHUNKS = 4
"""So many chunks a worker, or more: the last ones to end leave the others idle for a part of a chunk."""
ENGINE = 3 * 2**30
"""Bytes that an engine takes beside its model and the copy with an adapter: libraries, cached keys and values."""


@dataclass(frozen=True)
class Bench:
    """On what the cells of a run are measured: an engine of that kind, with room for `adapters`."""

    terms: Terms
    engine: EngineName
    adapters: tuple[Adapter, ...]
    keep_outputs: bool = False

    def open(self) -> "OpenBench":
        """The bench of this process, opened unless it is open."""
        global _open_bench
        if _open_bench is None or _open_bench.bench != self:
            if _open_bench is not None:
                _open_bench.close()
            _open_bench = OpenBench(self)
        return _open_bench


class OpenBench:
    """A registry and an engine, with a probe whose base reading is kept."""

    def __init__(self, bench: Bench) -> None:
        terms = bench.terms
        self.bench = bench
        self.registry = terms.open()
        self.engine = open_engine(bench.engine, terms.base.path, terms.store(), bench.adapters)
        self.probe = EngineProbe(self.engine)

    def close(self) -> None:
        """Free the model."""
        self.engine.close()
        self.registry.close()


_open_bench: OpenBench | None = None


@dataclass(frozen=True)
class Chunk:
    """Some tasks of the row of an adapter (None: base): its result is the name of the engine that measured them.

    With `probe` the adapter's effect on the probe is recorded too. Engines of another name than `engine` are refused.
    """

    bench: Bench
    adapter: Adapter | None
    tasks: tuple[Task, ...]
    engine: str | None = None
    probe: bool = False

    @property
    def name(self) -> str:
        """What it does."""
        who = "base" if self.adapter is None else self.adapter.name
        return f"measure {who} on {', '.join(t.name for t in self.tasks)}" if self.tasks else f"measure {who}"

    @property
    def size(self) -> float:
        """How many cells it measures."""
        return len(self.tasks)

    @property
    def memory(self) -> int:
        """How many bytes it may take, by estimate."""
        terms = self.bench.terms
        return ENGINE + 2 * terms.base.weights_size(terms.precision)

    @property
    def whole_gpu(self) -> bool:
        """Whether it takes a GPU to itself, as vLLM does."""
        import torch

        return self.bench.engine != "transformers" and torch.cuda.is_available() and find_spec("vllm") is not None

    def here(self) -> Self:
        """The chunk on another machine than that of the run.

        Raises:
            UnfitMachineError: it would measure otherwise there.
        """
        terms = self.bench.terms.here()
        if self.adapter is not None:
            terms.check_weights(self.adapter.weights_digest)
        return replace(self, bench=replace(self.bench, terms=terms))

    def run(self, report: Report) -> str:
        """Measure what is not measured yet."""
        bench, base = self.bench.open(), self.bench.terms.base
        engine, registry = bench.engine, bench.registry
        if self.engine not in (None, engine.name):
            raise UnfitMachineError(f"it measures on {engine.name}, and this run on {self.engine}")
        for done, task in enumerate(self.tasks, start=1):
            with spared(task):
                measured_cell(engine, registry, base, self.adapter, task, keep_outputs=self.bench.keep_outputs)
            report(done)
        if self.probe and self.adapter is not None and (effect := bench.probe.effect(self.adapter)) is not None:
            registry.set_effect(self.adapter, effect.nats, effect.noise)
        return engine.name


class DeferredEngine:
    """An engine that is opened here only if something is left to be measured."""

    def __init__(self, name: str, opening: Callable[[], Engine]) -> None:
        self.name = name
        self._opening = opening
        self._engine: Engine | None = None

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score `requests`.

        Raises:
            InputError: the engine of this machine is another one.
        """
        if self._engine is None:
            self._engine = self._opening()
        if self._engine.name != self.name:
            raise InputError(
                f"the cells of this run are measured on {self.name}, and what is missing of them would be measured on "
                f"{self._engine.name} here: run the same command again"
            )
        return self._engine.run(requests)

    def close(self) -> None:
        """Free the model."""
        if self._engine is not None:
            self._engine.close()


@contextmanager
def measuring(
    engine: EngineName | Engine,
    base: BaseModelFolder,
    registry: Registry,
    adapters: Sequence[Adapter],
    rows: Sequence[Row],
    executor: Executor,
    *,
    keep_outputs: bool = False,
    on_cells: Callable[[int], None] = lambda done: None,
) -> Iterator[Engine]:
    """An engine to measure `rows` on, with room for `adapters`; where `executor` works elsewhere, it has done so.

    An engine that is handed in stays open. `on_cells` is called with how many cells are measured elsewhere.

    Raises:
        TraitRouteError: a job of the executor failed; cells that are finished are kept.
    """
    if not isinstance(engine, str):
        yield engine
        return
    if executor.workers:
        executor.check(registry)
        bench = Bench(Terms.of(base, registry), engine, tuple(adapters), keep_outputs)
        opened = measure_spread(executor, bench, registry, rows, on_cells=on_cells)
    else:
        opened = open_engine(engine, base.path, registry.weights, adapters)
    try:
        yield opened
    finally:
        opened.close()


def measure_spread(
    executor: Executor,
    bench: Bench,
    registry: Registry,
    rows: Sequence[Row],
    *,
    on_cells: Callable[[int], None] = lambda done: None,
) -> DeferredEngine:
    """Have `executor` measure `rows`, base's first; return the engine on which that was.

    `on_cells` is called with how many cells are there. What is learnt of an adapter's effect on the probe is recorded.

    Raises:
        TraitRouteError: a job failed; cells that are finished are kept.
    """
    first = Chunk(bench, None, ())
    if first.whole_gpu:
        # It would find what training left there.
        executor.rest()
    [engine] = executor.run([first], lambda place, amount: None)

    def opening() -> Engine:
        # Two models at a time may be too much for the machine, or for its GPU.
        executor.rest()
        return open_engine(bench.engine, bench.terms.base.path, registry.weights, bench.adapters)

    missing = _missing(bench.terms.base.digest, engine, set(registry.cell_keys()), rows)
    done = sum(len(tasks) for _, tasks in rows) - sum(len(tasks) for _, tasks in missing)
    on_cells(done)
    # Base first: metrics compare with what it answers.
    for part in (missing[:1], missing[1:]):
        chunks = list(_chunks(bench, engine, part, executor.workers))
        measured = [0] * len(chunks)

        def advance(place: int, amount: float, measured: list[int] = measured, done: int = done) -> None:
            measured[place] = int(amount)
            on_cells(done + sum(measured))

        executor.run(chunks, advance)
        done += sum(len(chunk.tasks) for chunk in chunks)
    return DeferredEngine(engine, opening)


def _missing(base_digest: str, engine: str, known: set[str], rows: Sequence[Row]) -> list[Row]:
    """What is not among the `known` keys, each cell once: adapters of two names may have the same weights."""
    missing: list[Row] = []
    for who, tasks in rows:
        keys = {cell_key(base_digest, who, task.digest, engine): task for task in tasks}
        missing.append((who, [task for key, task in keys.items() if key not in known]))
        known |= keys.keys()
    return missing


def _chunks(bench: Bench, engine: str, rows: Sequence[Row], workers: int) -> Iterator[Chunk]:
    """What is missing of `rows`, in chunks of a row: `CHUNKS` for each worker where there are enough cells."""
    cells = sum(len(tasks) for _, tasks in rows)
    size = max(1, cells // (CHUNKS * workers))
    for adapter, tasks in rows:
        parts = max(1, round(len(tasks) / size))
        unread = adapter is not None and adapter.effect is None
        for part in range(parts):
            chosen = tuple(tasks[part::parts])
            if chosen or unread:
                yield Chunk(bench, adapter, chosen, engine, probe=unread and part == 0)
