"""The command line in process, and a registry with a real profile fitted on made-up gains."""

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, AdapterState, NewRow, Registry
from traitroute.cli import main
from traitroute.router import FitRequests, RoutingProfile, fit_profile

Run = Callable[..., subprocess.CompletedProcess[str]]

TOPICS = {
    "coder": ["write a python function", "fix this compiler error", "what does this loop print"],
    "cook": ["how long do I boil eggs", "a recipe with rice and beans", "bake bread without yeast"],
    "critic": ["was the film any good", "review this novel", "is the acting convincing"],
}
HELP, HARM = 0.9, -0.3


def fit_topics() -> RoutingProfile:
    """Each adapter helps the texts of its own topic and harms the others."""
    names = list(TOPICS)
    texts = [f"{text} {word}" for topic in TOPICS.values() for text in topic for word in "abcd"]
    tasks = [name for name, topic in TOPICS.items() for _ in range(4 * len(topic))]
    gains = np.array([[HELP if n == task else HARM for n in names] for task in tasks])
    by_task = np.where(np.eye(len(names)) > 0, HELP, HARM)
    u, s, _ = np.linalg.svd(by_task - by_task.mean(axis=0))
    return fit_profile(names, FitRequests(texts, tasks, gains), (u * s)[:, :2], n_traits=2)


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three measured adapters and one that was never measured."""
    path = tmp_path_factory.mktemp("registry") / "traitroute.db"
    names = list(TOPICS)
    scores = np.array([[0.1 + (HELP if a == t else HARM / 3) for t in names] for a in names])
    weights = {name: str(digit) * 64 for digit, name in enumerate(names, start=1)}
    summary = made_up_summary(names, names, base=np.full(3, 0.1), scores=scores, weights=weights)
    with Registry.create(path) as registry:
        for digit, name in enumerate([*names, "fresh"], start=1):
            registry.add_adapter(
                Adapter(
                    name=name,
                    base_model="tiny",
                    base_digest="0" * 64,
                    weights_digest=str(digit) * 64,
                    rank=8,
                    target_modules=("q_proj",),
                    state=AdapterState.READY if name in TOPICS else AdapterState.PENDING,
                )
            )
        registry.put_profile(fit_topics().to_bytes(), summary)
    return path


@pytest.fixture
def two_versions(profiled: Path, tmp_path: Path) -> Path:
    """The profile, and a second version that `fresh`, a little better than the coder, has joined."""
    path = Path(shutil.copy(profiled, tmp_path / "registry.db"))
    with Registry.open(path) as registry:
        stored = registry.profile(1)
        routing = RoutingProfile.from_bytes(stored.data)
        grown = routing.with_adapter("fresh", routing.trait_scores[0] * np.float64(1.05))
        nothing = np.zeros(len(stored.summary.tasks))
        row = NewRow("fresh", "4" * 64, stored.summary.tasks, nothing, nothing, nothing.astype(int), ())
        summary = stored.summary.with_row(row)
        registry.admit(registry.adapter("fresh"), grown.to_bytes(), summary, parent=1)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `traitroute` with these arguments, and `stdin` as its standard input."""

    def command(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        argv = ["traitroute", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(argv, code, *capsys.readouterr())

    return command


@pytest.fixture
def refusal(run: Run) -> Callable[..., str]:
    """Run a command that must be refused: exit code 2 and one line on standard error, returned."""

    def command(*arguments: object, stdin: bytes = b"") -> str:
        ended = run(*arguments, stdin=stdin)
        assert ended.returncode == 2
        assert ended.stdout == ""
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    return command
