"""The offline flow, a line a stage: suite → adapters → transfer matrix → traits → routing profile.

An adapter is trained on each source task of the suite, or was there already; what follows does not depend on which.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import Progress, TaskID

from ..adapters import Adapter, AdapterState, AllowedSources, Cell, InputError, Registry, SilentAdapterError
from ..router import RoutingProfile
from ..serving import EngineName
from ..serving.engines import Engine
from .base_model import BaseModelFolder, open_base_model
from .execution.executor import Executor, InThisProcess
from .execution.terms import Terms
from .fit import Fit, fit, warn_of_pointless
from .given import GivenAdapters, bring
from .matrix.everyday import everyday_losses, everyday_task
from .matrix.matrix import TransferMatrix
from .matrix.measure import measure, measured_cell
from .matrix.spread import measuring
from .row_lengths import fit_rows
from .tasks.suite import Suite
from .tasks.task import Task, check_distinct, data_warnings, routing_scores
from .training import TrainedAdapter, TrainJob, adapter_record
from .traits.space import TraitSpace

_logger = logging.getLogger(__name__)
ANY_FOLDER = AllowedSources(typed=True)


@dataclass(frozen=True)
class Profile:
    """What one profiling run made.

    `set_aside` says why adapters that were given are not in it; `seconds` holds the wall time of each stage.
    """

    version: int
    training: tuple[TrainedAdapter, ...]
    matrix: TransferMatrix
    traits: TraitSpace
    routing: RoutingProfile
    seconds: dict[str, float]
    set_aside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A suite whose rows are rendered, checked and fitted to its base model; `warnings` are of its rows."""

    suite: Suite
    base: BaseModelFolder
    warnings: tuple[str, ...]
    seconds: float


def prepare(
    suite: Suite,
    *,
    warn: Callable[[str], None] = _logger.warning,
    open_base: Callable[[str], BaseModelFolder] = open_base_model,
) -> Prepared:
    """Read and check all that a profile of `suite` needs; `warn` is called with what is odd about its rows.

    Raises:
        InputError: the suite, its data or its base model are not as they should be.
    """
    start = time.perf_counter()
    quiet_libraries()
    load_examples(suite)
    check_distinct(suite.tasks)
    base = open_base(suite.base_model)
    suite, long = fit_rows(suite, base)
    warnings = (*data_warnings(suite.tasks), *long)
    for warning in warnings:
        warn(warning)
    return Prepared(suite, base, warnings, time.perf_counter() - start)


def profile(
    suite: Suite,
    registry: Registry,
    runs: Path,
    *,
    engine: EngineName | Engine | None = None,
    allowed: AllowedSources = ANY_FOLDER,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Train, measure, fit and record `suite`; what an earlier run finished in `runs` is reused.

    Adapters that are given come from where `allowed` lets them come from. An `engine` that is handed in stays open.
    `executor` trains, and measures where no engine is handed in; by default this process does both.

    Raises:
        InputError: the suite, its data, its base model or an adapter that is given are not as they should be.
        SilentAdapterError: a trained adapter changes nothing, or each one that was given.
    """
    return profile_prepared(
        prepare(suite), registry, runs, engine=engine, allowed=allowed, executor=executor, progress=progress
    )


def profile_prepared(
    prepared: Prepared,
    registry: Registry,
    runs: Path,
    *,
    engine: EngineName | Engine | None = None,
    allowed: AllowedSources = ANY_FOLDER,
    executor: Executor | None = None,
    progress: Progress | None = None,
    check: Callable[[Sequence[Adapter]], None] = lambda adapters: None,
) -> Profile:
    """`profile` of a suite that is prepared, for callers that write nothing before all is checked.

    `check` is called with all adapters before anything is measured.
    """
    suite, base = prepared.suite, prepared.base
    executor, progress = executor or InThisProcess(), progress or Progress(disable=True)
    executor.check(registry)
    clock = _Clock(prepare=prepared.seconds)
    given = bring(suite.adapters, base, registry, allowed)
    clock.lap("fetch")
    training = train(suite, base, registry, runs, executor, progress)
    clock.lap("train")
    origins = {a.name: a.of for a in suite.ablations}
    trained = [_register(t, origins.get(t.name, t.name), base, registry) for t in training]
    fleet = _Fleet(trained[: len(suite.sources)], given, trained[len(suite.sources) :])
    check(fleet.all)
    cells, everyday = _measure(suite, base, registry, fleet, engine or suite.engine, executor, progress)
    clock.lap("measure")
    whole = [c for c in cells if c.adapter not in origins]
    matrix = TransferMatrix.from_cells(whole, score=routing_scores(suite.tasks))
    fitted = fit(matrix, suite.tasks, [given.source(name) or name for name in matrix.adapters], everyday=everyday)
    warnings = (*prepared.warnings, *warn_of_pointless(matrix, suite.tasks))
    version = _record(suite, registry, cells, everyday, fitted, given, warnings)
    clock.lap("fit")
    set_aside = dict(given.set_aside)
    return Profile(version, tuple(training), matrix, fitted.traits, fitted.routing, clock.laps, set_aside)


@dataclass
class _Fleet:
    """The adapters of the matrix, `trained` or `given`, and those of ablations `beside` it."""

    trained: Sequence[Adapter]
    given: GivenAdapters
    beside: Sequence[Adapter]

    @property
    def whole(self) -> list[Adapter]:
        """The adapters that are measured on every task."""
        return [*self.trained, *self.given.adapters]

    @property
    def all(self) -> list[Adapter]:
        """All adapters.

        Raises:
            InputError: there is none.
        """
        if not self.whole:
            raise InputError(f"no adapter is left to profile; {self.given.reasons}")
        return [*self.whole, *self.beside]

    def read_again(self, registry: Registry) -> "_Fleet":
        """The adapters with what `registry` knows of them by now."""

        def read(adapters: Sequence[Adapter]) -> list[Adapter]:
            return [registry.adapter(adapter.name) for adapter in adapters]

        given = replace(self.given, adapters=tuple(read(self.given.adapters)))
        return _Fleet(read(self.trained), given, read(self.beside))


def load_examples(suite: Suite) -> None:
    """Render every row now, so that bad data stops the run before anything is trained.

    Raises:
        SuiteError: a row, label or template is not as it should be.
    """
    for task in suite.tasks:
        _ = task.test_examples
    _ = suite.training_sets()


def train(
    suite: Suite, base: BaseModelFolder, registry: Registry, runs: Path, executor: Executor, progress: Progress
) -> list[TrainedAdapter]:
    """Have `executor` train an adapter on every source and ablation of the suite into `runs/<name>`."""
    sets = suite.training_sets()
    if not sets:
        return []
    runs.mkdir(parents=True, exist_ok=True)
    terms, runs = Terms.of(base, registry), runs.absolute()
    terms.weights.mkdir(parents=True, exist_ok=True)
    jobs = [TrainJob(data, suite.training, runs / data.name, terms) for data in sets]
    trained = {job.data.name: done for job in jobs if (done := job.finished()) is not None}
    waiting = [job for job in jobs if job.data.name not in trained]
    overall = progress.add_task("train adapters", total=len(jobs), completed=len(trained))
    bars: dict[int, TaskID] = {}
    ended: set[int] = set()

    def show(place: int, share: float) -> None:
        if place in ended:
            return
        if place not in bars:
            bars[place] = progress.add_task(f"  {waiting[place].data.name}", total=1.0)
        progress.update(bars[place], completed=share, visible=share < 1)
        if share >= 1:
            ended.add(place)
            progress.advance(overall)

    trained |= {each.name: each for each in executor.run(waiting, show)}
    if lost := [job.folder for job in waiting if not job.folder.is_dir()]:
        raise InputError(
            f"{lost[0]} was trained elsewhere and is not here: give --runs a folder that all machines share"
        )
    return [trained[job.data.name] for job in jobs]


def quiet_libraries() -> None:
    """Keep the libraries' bars and notices out of ours, and their usage statistics off the network."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # What datasets reads when it is imported, which half a second is saved by not doing here.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _register(trained: TrainedAdapter, source: str, base: BaseModelFolder, registry: Registry) -> Adapter:
    """Record a trained adapter; one that is known with these weights keeps its state, and its routing."""
    adapter = adapter_record(trained.name, source, base, registry.weights.add(trained.folder))
    for known in registry.adapters():
        if (known.name, known.weights_digest) == (adapter.name, adapter.weights_digest):
            return known
    registry.add_adapter(adapter, replace=True)
    return adapter


def _measure(
    suite: Suite,
    base: BaseModelFolder,
    registry: Registry,
    fleet: _Fleet,
    engine: EngineName | Engine,
    executor: Executor,
    progress: Progress,
) -> tuple[list[Cell], dict[str, float]]:
    """Measure the adapters of the matrix on every task, and each ablation's on its own; and what is lost on everyday
    requests."""
    for task in suite.tasks:
        registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
    beside = [(adapter, suite.measured_on(a)) for adapter, a in zip(fleet.beside, suite.ablations, strict=True)]
    tasks = (*suite.tasks, everyday_task())
    rows = [(None, tasks), *((a, tasks) for a in fleet.whole), *beside]
    bar = _Cells(progress, progress.add_task("measure cells", total=sum(len(tasks) for _, tasks in rows)))
    with measuring(
        engine, base, registry, fleet.all, rows, executor, keep_outputs=suite.keep_outputs, on_cells=bar.reach
    ) as opened:
        fleet = fleet.read_again(registry)
        cells = _read(suite, base, registry, fleet, opened, bar)

        def everyday_cell(adapter: Adapter | None, task: Task) -> Cell:
            cell = measured_cell(opened, registry, base, adapter, task, keep_outputs=suite.keep_outputs)
            bar.advance()
            return cell

        kept = {cell.adapter for cell in cells}
        everyday = everyday_losses([each for each in fleet.whole if each.name in kept], everyday_cell)
        bar.end()
        return cells, everyday


@dataclass
class _Cells:
    """How many cells are there; those that were measured elsewhere are read here later, and count once."""

    progress: Progress
    bar: TaskID
    shown: int = 0
    read: int = 0

    def reach(self, cells: int) -> None:
        """So many cells are there."""
        if cells > self.shown:
            self.shown = cells
            self.progress.update(self.bar, completed=cells)

    def advance(self) -> None:
        """Another cell is read."""
        self.read += 1
        self.reach(self.read)

    def end(self) -> None:
        """No more are measured; what was set aside, or cannot be asked, is missing."""
        self.progress.update(self.bar, total=self.shown)


def _read(
    suite: Suite, base: BaseModelFolder, registry: Registry, fleet: _Fleet, engine: Engine, bar: _Cells
) -> list[Cell]:
    """The cells of all adapters, measured where they are not yet; adapters that change nothing are set aside."""

    def set_aside(adapter: Adapter, silent: SilentAdapterError) -> None:
        if adapter in fleet.trained:
            raise silent
        fleet.given.set_aside[adapter.name] = str(silent)
        registry.set_state(adapter.name, AdapterState.DISABLED, note="measured: it changes nothing")

    cells = measure(
        engine,
        registry,
        base,
        fleet.whole,
        suite.tasks,
        keep_outputs=suite.keep_outputs,
        on_cell=lambda cell: bar.advance(),
        on_silent=set_aside,
    )
    if all(cell.adapter is None for cell in cells):
        raise SilentAdapterError(f"no adapter is left to profile; {fleet.given.reasons}")
    for adapter, ablation in zip(fleet.beside, suite.ablations, strict=True):
        altered = measure(
            engine,
            registry,
            base,
            [adapter],
            suite.measured_on(ablation),
            keep_outputs=suite.keep_outputs,
            on_cell=lambda cell: bar.advance() if cell.adapter is not None else None,
        )
        cells += [cell for cell in altered if cell.adapter is not None]
    return cells


def _record(
    suite: Suite,
    registry: Registry,
    cells: Sequence[Cell],
    everyday: Mapping[str, float],
    fitted: Fit,
    given: GivenAdapters,
    warnings: Sequence[str] = (),
) -> int:
    """Store the profile, then open to routing those of its adapters that can be served."""
    adapters = [registry.adapter(name) for name in fitted.matrix.adapters]
    previous = registry.latest_profile()
    summary = fitted.summary(
        previous and previous.summary,
        suite=suite.name,
        base_model=suite.base_model,
        method=", ".join(dict.fromkeys(adapter.method for adapter in adapters)),
        ablations=tuple(a.model_dump(mode="json") for a in suite.ablations),
        warnings=(*warnings, *(f"{name} was set aside: {why}" for name, why in given.set_aside.items())),
        cells=tuple(cell.key for cell in cells),
        weights={a.name: a.weights_digest for a in adapters},
        training={name: note for name, note in given.training.items() if name in fitted.matrix.adapters},
        everyday=everyday,
    )
    served = [adapter.name for adapter in adapters if adapter.vllm_serves]
    return registry.put_profile(fitted.routing.to_bytes(), summary, ready=served)


class _Clock:
    def __init__(self, **laps: float) -> None:
        self.laps = laps
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
