"""A suite: the tasks, base model and training settings of one profiling run, read from YAML."""

from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from ...adapters import Method, Name, SuiteError, check_not_base
from ..base_model import PACKAGED
from .ablation import Ablation
from .inference import infer_task
from .sources import FolderSource, file_rows, split_file, tested_tasks
from .task import Task, TrainingSet
from .text_files import explained, parse_yaml, read_text

LEAST_TEST = 8
"""Test rows that a task keeps, however small a share of them is asked for."""
_TASKS_ONLY = "tasks only"
"""Says to the checks of a suite that only its tasks are wanted."""
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Training(BaseModel):
    """How every adapter of a suite is trained (PEFT through TRL's SFTTrainer); IA3 has no rank."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "lora"
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] = ALL_LINEAR
    epochs: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Annotated[int, Field(ge=1)] = 4
    max_length: Annotated[int, Field(ge=16)] = 512
    seed: int = 0


class GivenAdapter(BaseModel):
    """An adapter that is there already, to be profiled as it is.

    `uri` is a folder, a Hub id or a URL; without it the registry has the adapter by its name. `rows` is a file of rows
    that it was trained on, where those are known. `same_base` states that a base model named otherwise in its
    configuration is the suite's. One that is not `required` is set aside where it is refused, and the others go on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    uri: str | None = None
    rows: Path | None = None
    same_base: bool = False
    required: bool = True


class Suite(BaseModel):
    """A list of tasks with the base model and the training settings.

    The matrix has a row for each task with `source: true`, on which an adapter is trained, and for each of `adapters`,
    which are there already. `ablations` are altered sources: adapters trained on them are measured on the source tasks,
    and what else they name, beside the matrix and never routed to. `keep_outputs` keeps what every adapter wrote, for
    the analyses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    base_model: str = PACKAGED
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    training: Training = Training()
    adapters: tuple[GivenAdapter, ...] = ()
    tasks: tuple[Task, ...]
    ablations: tuple[Ablation, ...] = ()
    keep_outputs: bool = False

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> "Suite":
        names = [*(t.name for t in self.tasks), *(a.name for a in self.ablations)]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"task and ablation names must differ; given twice: {twice}")
        sources = [t.name for t in self.sources]
        rows = [*sources, *(a.name for a in self.ablations), *(a.name for a in self.adapters)]
        if twice := sorted({n for n in rows if rows.count(n) > 1}):
            raise ValueError(f"adapters, those trained on sources and ablations included, share the names {twice}")
        tasks_only = info.context == _TASKS_ONLY
        if len(self.sources) < 2 and not (self.adapters or tasks_only):
            raise ValueError('at least two tasks need "source: true", or name "adapters" that are there already')
        if len(self.tasks) < (least := 1 if tasks_only else 2 if self.adapters else 3):
            raise ValueError(f"at least {least} tasks are needed, to tell requests of one kind from those of another")
        voted = [t.name for t in self.tasks if t.metric.by_votes]
        if voted and len(self.sources) + len(self.adapters) < 2 and not tasks_only:
            raise ValueError(
                f"task {voted[0]} is scored by what the others answer: that takes two adapters beside base at least, "
                "and tells something from five or so"
            )
        if lost := [a.of for a in self.ablations if a.of not in sources]:
            raise ValueError(f'ablations alter source tasks {sources}; "of" names {lost}')
        answered = [t.name for t in self.tasks if not t.metric.by_votes]
        if lost := [name for a in self.ablations for name in a.measured_on if name not in answered]:
            raise ValueError(
                f'ablations are measured on tasks of the suite with right answers; "measured_on" names {lost}'
            )
        if same := [a.name for a in self.ablations if a.is_unchanged and a.seed == self.training.seed]:
            raise ValueError(f"ablation {same[0]} is trained with the suite's own seed: give it another")
        for name in rows:
            check_not_base(name, self.base_model)
        return self

    @property
    def sources(self) -> tuple[Task, ...]:
        """The tasks that an adapter is trained on."""
        return tuple(t for t in self.tasks if t.source)

    def training_sets(self) -> list[TrainingSet]:
        """What each adapter is trained on: the sources in their order, then the ablations."""
        tasks = {t.name: t for t in self.sources}
        return [*(t.training_set for t in self.sources), *(a.training_set(tasks[a.of]) for a in self.ablations)]

    def measured_on(self, ablation: Ablation) -> tuple[Task, ...]:
        """The tasks that an ablation's adapter is measured on."""
        return tuple(t for t in self.tasks if t.source or t.name in ablation.measured_on)

    def with_adapters(self, given: Sequence[GivenAdapter]) -> "Suite":
        """The suite with further adapters that are there already.

        Raises:
            SuiteError: a name is given twice, or is not an adapter's.
        """
        return _checked_suite(f"suite {self.name}", **{**dict(self), "adapters": (*self.adapters, *given)})

    def without_adapters(self, names: Collection[str]) -> "Suite":
        """The suite without some of its adapters.

        Raises:
            SuiteError: too few are left.
        """
        kept = tuple(each for each in self.adapters if each.name not in names)
        return _checked_suite(f"suite {self.name}", **{**dict(self), "adapters": kept})

    def to_yaml(self) -> str:
        """The suite as a YAML file that `load_suite` reads; what is by default is left out."""
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120
        )

    def over(self, folder: Path) -> "Suite":
        """The suite with the rows of `folder/<task>` in place of any other local folder.

        Raises:
            SuiteError: no task of the suite reads a local folder.
        """
        if not any(isinstance(t.rows, FolderSource) for t in self.tasks):
            raise SuiteError(
                f"no task of suite {self.name} reads a local folder, so --data has nothing to replace: "
                "leave it out, or leave the suite out and name --sources"
            )
        place = {"folder": folder.resolve()}
        tasks = tuple(
            t.model_copy(update={"rows": t.rows.model_copy(update=place)}) if isinstance(t.rows, FolderSource) else t
            for t in self.tasks
        )
        return self.model_copy(update={"tasks": tasks})

    def altered(
        self,
        *,
        tasks: Sequence[str] = (),
        train: int | None = None,
        test: int | None = None,
        share: float = 1.0,
        base_model: str | None = None,
        method: Method | None = None,
        seed: int | None = None,
    ) -> "Suite":
        """The suite with only the named `tasks` and other settings, where given.

        Ablations of these tasks are kept: all of them, or those that are named among the `tasks`.

        Of the test rows a `share` in (0, 1] is kept, at least `LEAST_TEST` a task that has them.

        Raises:
            SuiteError: a task is not in the suite, or too few are left.
        """
        names, ablations = [t.name for t in self.tasks], [a.name for a in self.ablations]
        if unknown := [name for name in tasks if name not in (*names, *ablations)]:
            raise SuiteError(f"suite {self.name} has no task {unknown[0]!r}; it has {names}")
        kept = tasks or names
        altered = set(ablations).intersection(tasks) or ablations
        sizes = _given(train=train, test=test)
        sized = [t.model_copy(update=sizes) for t in self.tasks if t.name in kept]
        given = {
            "tasks": tuple(t.model_copy(update={"test": _share_of(t.test, share)}) for t in sized),
            "ablations": tuple(
                a.model_copy(update={"measured_on": tuple(name for name in a.measured_on if name in kept)})
                for a in self.ablations
                if a.of in kept and a.name in altered
            ),
            "training": self.training.model_copy(update=_given(method=method, seed=seed)),
            **_given(base_model=base_model),
        }
        return _checked_suite(f"suite {self.name}", **{**dict(self), **given})


def _share_of(rows: int, share: float) -> int:
    return max(round(share * rows), min(rows, LEAST_TEST))


def load_suite(path: str | Path) -> Suite:
    """Read a suite from a YAML file, or a built-in one by its name (`mini`).

    Raises:
        SuiteError: no such suite, not YAML, or a key with a wrong value; the message names the key.
    """
    return _load(path)


def load_tasks(path: str | Path) -> tuple[Task, ...]:
    """The tasks of a suite, which need neither train nor name adapters here.

    Raises:
        SuiteError: no such suite, not YAML, or a key with a wrong value; the message names the key.
    """
    return _load(path, context=_TASKS_ONLY).tasks


def _load(path: str | Path, context: str | None = None) -> Suite:
    file = Path(path)
    if not file.is_file() and file.name == str(path) and not file.suffix:
        return _parse(_built_in(file.name), f"built-in suite {file.name!r}", context)
    return _parse(read_text(file), str(file), context)


def folder_suite(
    folder: Path,
    sources: Sequence[str],
    targets: Sequence[str] = (),
    *,
    train: int = 200,
    test: int = 100,
    base_model: str = PACKAGED,
    training: Training | None = None,
    adapters: Sequence[GivenAdapter] = (),
) -> Suite:
    """A suite over `<folder>/<task>/{train,test}.jsonl`, everything else inferred from the rows."""
    tasks = [
        infer_task(folder, name, source=name in sources, train=train, test=test)
        for name in dict.fromkeys([*sources, *targets])
    ]
    return _checked_suite(
        f"tasks of {folder}",
        name=folder.name if folder.name.isidentifier() else "folder",
        base_model=base_model,
        training=training or Training(),
        tasks=tuple(tasks),
        adapters=tuple(adapters),
    )


def target_suite(places: Sequence[str], adapters: Sequence[GivenAdapter], *, base_model: str = PACKAGED) -> Suite:
    """A suite that trains nothing: `adapters` that are there already on the tasks at `places`; see `target_tasks`.

    Raises:
        SuiteError: a place holds no tasks, or two have tasks of one name.
    """
    tasks = tuple(task for place in places for task in target_tasks(place))
    where = ", ".join(places)
    return _checked_suite(where, name="targets", base_model=base_model, tasks=tasks, adapters=tuple(adapters))


def target_tasks(place: str, *, test: int | None = None) -> list[Task]:
    """The tasks at a place, to be measured only: a file of rows, a task's folder, a folder of these, or a suite.

    Raises:
        SuiteError: it is none of these, or a task's rows are not as they should be.
    """
    there = Path(place).resolve()
    if not there.is_dir() and there.suffix in ("", ".yaml", ".yml"):
        sizes = _given(test=test)
        return [Task.model_validate(t.model_dump() | {"source": False, **sizes}) for t in load_tasks(place)]
    if not there.is_dir():
        # It is read by its name, and refused here where it is of no kind that is read.
        _ = next(file_rows(there), None)
        folder, names = there.parent, [there.stem]
    elif split_file(there.parent, there.name, "test") is not None:
        folder, names = there.parent, [there.name]
    else:
        folder, names = there, tested_tasks(there)
    if not names:
        raise SuiteError(f"{place} holds no task: give TASK/test.jsonl or TASK.jsonl in it, or .csv or .parquet")
    return [infer_task(folder, name, source=False, train=0, test=test or 100, splits=("test",)) for name in names]


def _checked_suite(where: str, **parts: Any) -> Suite:
    try:
        return Suite.model_validate(parts)
    except ValidationError as exc:
        raise SuiteError(explained(exc, where)) from exc


def _given(**settings: Any) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _built_in(name: str) -> str:
    folder = resources.files("traitroute.suites")
    known = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
    if name not in known:
        raise SuiteError(f"no suite file and no built-in suite {name!r}; built in: {known}")
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def _parse(text: str, where: str, context: str | None) -> Suite:
    try:
        return Suite.model_validate(parse_yaml(text, where), context=context)
    except ValidationError as exc:
        raise SuiteError(explained(exc, where)) from exc
