"""`traitroute predict`: a forecast with its uncertainty, and what is said where none can be made."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Cell, Outcomes, Registry
from traitroute.profiling import Example, Task, load_suite, open_base_model
from traitroute.profiling.analysis.similarity import STYLE_NAMES
from traitroute.profiling.forecast.forecast import source_task
from traitroute.profiling.forecast.signals import SignalReader, Signals, answer_form, signal_folder

from ..made_up_outcomes import made_up_outcomes

pytestmark = pytest.mark.slow

for library in ("transformers", "datasets"):
    pytest.importorskip(library, reason="needs the extra: pip install 'traitroute[profile]'")

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]
TASKS = load_suite("mini").tasks
MINI = Path(__file__).parents[2] / "suites" / "mini"
SOURCES = [task.name for task in TASKS if task.source]


class MadeUp(SignalReader):
    """Keeps random signals under the digest of the rows, so that the command finds them read."""

    def _measure(self, examples: list[Example], labels: tuple[str, ...], metric: str) -> Signals:
        random = np.random.default_rng(len(examples[0].prompt))
        return Signals(
            form=answer_form(examples, labels, metric),
            labels=labels,
            relations={"nsubj": 0.4, "dobj": 0.6},
            lengths=np.array([len(e.target.split()) for e in examples], np.int32),
            class_counts=np.array([sum(e.answer == c for e in examples) for c in labels], np.int64),
            style=random.random(len(STYLE_NAMES)),
            meaning=random.random(8),
            nats=random.random(4),
            gradient=random.normal(size=16),
        )

    def keep(self, task: Task) -> None:
        for rows in ([*task.training_examples] if task.train else [], task.test_examples):
            if rows:
                self.read(rows, labels=task.labels, metric=task.metric.name)


def outcomes(share: float, n: int = 20) -> Outcomes:
    right = np.arange(n) < round(share * n)
    return made_up_outcomes(right, parse_failure=~right)


def write_registry(folder: Path, sources: Sequence[str]) -> Path:
    """A measured profile of the built-in suite's tasks, for a base model that nobody needs to load."""
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    shares = np.random.default_rng(0).random((1 + len(sources), len(TASKS)))
    cells = [
        Cell(f"{adapter}-{task.name}", adapter, task.name, outcomes(shares[i, j]))
        for i, adapter in enumerate([None, *sources])
        for j, task in enumerate(TASKS)
    ]
    summary = made_up_summary(
        sources,
        [task.name for task in TASKS],
        suite="mini",
        base_model=str(base),
        cells=[cell.key for cell in cells],
    )
    with Registry.create(folder / "t.db") as registry:
        for task in TASKS:
            registry.put_task(task.name, "0", task.model_dump(mode="json"))
        for cell in cells:
            registry.put_cell(cell)
        registry.put_profile(b"", summary)
    return folder / "t.db"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one task that has training rows only."""
    folder = tmp_path_factory.mktemp("data")
    for name, dataset in (("reviews", "sentiment2"), (SOURCES[0], "paraphrase")):
        rows = MINI.joinpath(dataset, "train.jsonl").read_text("utf-8").splitlines()
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_text("\n".join(rows[-40:]))
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    path = write_registry(tmp_path_factory.mktemp("predict"), SOURCES)
    reader = MadeUp(open_base_model(str(path.parent / "base")), signal_folder(path))
    for task in TASKS:
        reader.keep(task)
    for name in ("reviews", SOURCES[0]):
        task = source_task(data, name=name)
        reader.read(task.training_examples, labels=task.labels, metric=task.metric.name)
    return path


def rows(stdout: str) -> dict[str, list[str]]:
    """Cells of every table row by its first cell."""
    lines = [line.strip("│") for line in stdout.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in ([c.strip() for c in line.split("│")] for line in lines)}


def test_every_profiled_task_gets_a_forecast_inside_its_interval(run: Run, registry: Path, data: Path) -> None:
    ended = run("predict", data / "reviews", "--registry", registry)
    assert ended.returncode == 0, ended.stderr
    shown = rows(ended.stdout)
    assert list(shown) == [task.name for task in TASKS]
    for _, gain, interval, _ in shown.values():
        low, high = json.loads(interval.replace("+", ""))
        assert low < float(gain) < high


def test_it_says_how_far_to_trust_it_and_that_the_mean_row_is_as_good(run: Run, registry: Path, data: Path) -> None:
    shown = run("predict", data, "--name", "reviews", "--registry", registry).stdout
    assert f"method: all, fitted to {len(SOURCES)} sources (cross-task cells)" in shown
    assert f"on the {len(SOURCES)} sources here, each left out in turn, the error is" in shown
    assert "the mean row is as good, as far as these sources can show" in shown


def test_the_mean_row_alone_forecasts_the_mean_of_the_sources(run: Run, registry: Path, data: Path) -> None:
    ended = run("predict", data / "reviews", "--registry", registry, "--method", "mean row")
    assert all(row[1] == row[3] for row in rows(ended.stdout).values())
    assert "as good" not in ended.stdout


def test_a_source_of_the_same_name_is_left_out(run: Run, registry: Path, data: Path) -> None:
    ended = run("predict", data / SOURCES[0], "--registry", registry)
    assert f"{SOURCES[0]} (own)" in rows(ended.stdout)
    assert f"fitted to {len(SOURCES) - 1} sources (all cells)" in ended.stdout


def test_signals_are_not_read_a_second_time(run: Run, registry: Path, data: Path) -> None:
    def files() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in signal_folder(registry).iterdir()}

    before = files()
    run("predict", data / "reviews", "--registry", registry)
    assert files() == before


def test_fewer_than_four_sources_are_too_few(refusal: Refusal, tmp_path: Path, data: Path) -> None:
    path = write_registry(tmp_path, SOURCES[:3])
    line = refusal("predict", data / "reviews", "--registry", path)
    assert "3 measured sources" in line
    assert "wanted at least 4" in line


def test_a_folder_of_tasks_needs_a_name(refusal: Refusal, registry: Path, data: Path) -> None:
    line = refusal("predict", data, "--registry", registry)
    assert "add --name with one of" in line
    assert "reviews" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "nothing"), "has no task folder 'nothing'"),
        (("--name", "reviews", "--method", "guess"), "no forecasting method 'guess'; methods: "),
        (("--name", "reviews", "--prompt", "{{ question }}"), "'question' is undefined"),
        (("--name", "reviews", "--prompt", "{{ input"), "is not valid Jinja2"),
    ],
)
def test_what_is_wrong_is_named(
    refusal: Refusal, registry: Path, data: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in refusal("predict", data, "--registry", registry, *options)


def test_a_task_is_inferred_as_a_profile_would_without_a_test_split(data: Path) -> None:
    task = source_task(data / "reviews")
    assert (task.metric.name, task.labels) == ("label", ("negative", "positive"))
    assert task.prompt == "{{ input }}\nAnswer with one of: negative, positive."
    assert source_task(data, name="reviews", prompt="Q: {{ input }}").prompt == "Q: {{ input }}"


def test_one_class_alone_is_refused(refusal: Refusal, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    row = json.dumps({"input": "a", "target": "yes", "label": "yes"})
    (tmp_path / "one" / "train.jsonl").write_text(f"{row}\n{row}")
    assert "there is one class only" in refusal("predict", tmp_path / "one", "--registry", registry)
