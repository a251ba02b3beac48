"""`traitroute gateway`: mistakes end in one line, and what is left is an app in front of the upstreams."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="needs traitroute[gateway]")
uvicorn = pytest.importorskip("uvicorn", reason="needs traitroute[gateway]")

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]

SERVER = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been served: a gateway that starts must not take over the tests."""
    calls: list[dict[str, Any]] = []

    def run(server: Any) -> None:
        calls.append(vars(server.config))
        server.started = True

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--upstream", "localhost:8000"), "'localhost:8000' is not the address of a server"),
        (("--upstream", "http://"), "wanted http:// or https://"),
        (("--upstream", "http://x:99999"), "is not the address of a server"),
        (("--upstream", "http://me:key@x"), "keys go into --upstream-key-env"),
        (("--upstream", SERVER, "--upstream", SERVER[:-3]), "is given twice"),
        (("--upstream", SERVER, "--alias", "math"), "wanted ADAPTER=NAME"),
        (("--upstream", SERVER, "--alias", "mth=x"), "holds coder, cook, critic, fresh"),
        (("--upstream", SERVER, "--load", "magic"), "wanted none, vllm, sglang, lorax, ray"),
        (("--upstream", SERVER, "--key-env", "NO_SUCH_KEY"), "export it first"),
        (("--upstream", SERVER, "--cors-origin", "app.example"), "wanted what browsers write"),
        (("--upstream", SERVER, "--cors-origin", "*"), "set a key, or name the origins"),
    ],
)
def test_a_mistake_is_told_with_its_cure(
    refusal: Refusal, profiled: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal("gateway", "--registry", profiled, *arguments)


def test_a_missing_registry_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    line = refusal("gateway", "--upstream", SERVER, "--registry", tmp_path / "nosuch.db")
    assert "no registry at" in line


def test_it_serves_on_the_given_port_and_prints_no_key(
    run: Run, profiled: Path, served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", "open-sesame")
    ended = run(
        *("gateway", "--registry", profiled, "--upstream", SERVER, "--port", "9001"),
        *("--key-env", "GATE", "--alias", "base=tiny"),
    )
    assert ended.returncode == 0, ended.stderr
    assert "http://localhost:8000 on http://127.0.0.1:9001/v1" in ended.stdout
    assert "sesame" not in ended.stdout + ended.stderr
    assert (served[0]["port"], served[0]["access_log"]) == (9001, False)
    # Beyond what clients keep idle connections for, so that they are the ones to close them.
    assert served[0]["timeout_keep_alive"] > 60


def test_help_teaches_by_an_example(run: Run) -> None:
    text = run("gateway", "--help").stdout
    assert "traitroute gateway --upstream" in " ".join(text.split())
