"""`traitroute worker` and `traitroute jobs`: what they refuse, in one line; what they do is in tests/profiling/jobs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from traitroute.adapters import Registry

pytest.importorskip("dbos", reason="needs DBOS: pip install 'traitroute[worker]'")

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]

SERVER = "http://127.0.0.1:9"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A registry without a profile."""
    with Registry.create(tmp_path / "registry.db") as registry:
        return registry.path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--server", SERVER), "holds no profile yet"),
        (("--server", "localhost:8000"), "'localhost:8000' is not the address of a server"),
        (("--server", SERVER, "--api-key-env", "NO_SUCH_KEY"), "export it first"),
        (("--server", SERVER, "--compare", "votes"), "by judge, agreement, format, not by 'votes'"),
        (("--server", SERVER, "--compare", "judge"), "give --judge MODEL and --judge-url URL"),
        (("--server", SERVER, "--compare", "agreement", "--judge", "m", "--judge-url", SERVER), "not by agreement"),
        (("--server", SERVER, "--judge", "m"), "give --compare judge"),
        (("--server", SERVER, "--compare", "agreement"), "TRAITROUTE_SAMPLE_KEY is not set"),
    ],
)
def test_a_mistake_is_told_with_its_cure(
    refusal: Refusal, empty: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal("worker", "--registry", empty, *arguments)


def test_a_password_in_the_servers_address_is_not_printed(refusal: Refusal, empty: Path) -> None:
    said = refusal("worker", "--registry", empty, "--server", "http://me:sesame@host")
    assert "is not the address of a server" in said
    assert "sesame" not in said


def test_a_registry_that_no_worker_has_seen_has_no_jobs(run: Run, refusal: Refusal, empty: Path) -> None:
    assert run("jobs", "list", "--registry", empty).returncode == 0
    for command in ("show", "retry"):
        said = refusal("jobs", command, "polite.1.2.3", "--registry", empty)
        assert "no job 'polite.1.2.3': see `traitroute jobs list`" in said
    assert not list(empty.parent.glob("*.jobs.db"))
