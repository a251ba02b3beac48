"""`traitroute doctor`: each finding, on real small registries, packages and servers."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import create_engine, text
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.serving import doctor
from traitroute.serving.doctor import Finding, Verdict, check_packages, check_registry, check_upstream

Run = Callable[..., subprocess.CompletedProcess[str]]

NAMES = ("coder", "cook", "critic")
CONFIG = '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}'
LONG_AGO = datetime.now(UTC) - timedelta(days=400)

needs_vllm = pytest.mark.skipif(not find_spec("vllm"), reason="needs vLLM: traitroute[serve]")


@pytest.fixture
def registry(profiled: Path, tmp_path: Path) -> Registry:
    """A registry whose three measured adapters have weights."""
    path = tmp_path / "traitroute.db"
    shutil.copy(profiled, path)
    registry = Registry.open(path)
    for seed, name in enumerate(NAMES):
        put(registry, name, seed=seed, created_at=LONG_AGO)
    return registry


def put(registry: Registry, name: str, *, seed: int, created_at: datetime | None = None) -> Adapter:
    folder = registry.path.with_name(f"{name}-{seed}")
    folder.mkdir()
    rng = np.random.default_rng(seed)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{prefix}.lora_A.weight": rng.normal(size=(4, 8)).astype(np.float32)}
    tensors[f"{prefix}.lora_B.weight"] = rng.normal(size=(8, 4)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(CONFIG)
    files = registry.weights.add(folder)
    adapter = Adapter(
        name=name,
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
        state=AdapterState.READY,
        created_at=created_at or datetime.now(UTC),
    )
    registry.add_adapter(adapter, replace=True)
    return adapter


def findings(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_registry(path)}


def change(registry: Registry, statement: str) -> None:
    engine = create_engine(f"sqlite:///{registry.path}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_sound_registry_is_found_sound(registry: Registry) -> None:
    registry.set_state("fresh", AdapterState.DISABLED)
    for adapter in registry.adapters():
        registry.set_effect(adapter, 7.0, 0.1)
    found = findings(registry.path)
    assert [f.verdict for f in found.values()] == [Verdict.OK] * 8
    assert "schema" in found["registry"].found
    assert found["profile"].found == "version 1, 0 days old"
    assert found["adapters"].found == "0 pending, 3 ready, 1 disabled"
    assert found["weights"].found == "3 servable adapters, every digest right"


@pytest.mark.parametrize(
    ("effect", "told"), [(None, "no proof from measuring: calm"), (0.1, "no more than noise: calm (0.1 nats on")]
)
def test_an_adapter_of_which_nothing_shows_that_it_is_applied_is_warned_of(
    registry: Registry, effect: float | None, told: str
) -> None:
    calm = {"name": "calm", "weights_digest": "c" * 64, "state": AdapterState.READY}
    registry.add_adapter(registry.adapter("fresh").model_copy(update=calm))
    for adapter in registry.adapters():
        if (nats := effect if adapter.name == "calm" else 7.0) is not None:
            registry.set_effect(adapter, nats, 0.1)
    found = findings(registry.path)["applied"]
    assert found.verdict is Verdict.WARN
    assert told in found.found


@pytest.mark.parametrize(
    ("verdict", "told"),
    [("idle", "answers as base when asked for odd, so sets"), ("unproven", "no proof that it applies odd:")],
)
def test_a_server_that_does_not_apply_an_adapter_is_warned_of(verdict: str, told: str) -> None:
    lines = [f'traitroute_adapter_verdict{{adapter="odd",verdict="{verdict}"}} 1.0']
    lines += ['traitroute_adapter_verdict{adapter="fine",verdict="idle"} 0.0']
    metrics = "\n".join(["# HELP x", *lines, ""]).encode()
    with upstream(200, b'{"data": [{"id": "tiny"}]}', [], metrics=metrics) as address:
        finding = check_upstream(f"http://{address}")
    assert finding.verdict is Verdict.WARN
    assert told in finding.found


def test_an_adapter_of_an_older_registry_that_is_called_like_its_base_is_told(registry: Registry) -> None:
    change(registry, "UPDATE adapters SET base_model = 'acme/Fresh:latest' WHERE name = 'fresh'")
    found = findings(registry.path)["names"]
    assert found.verdict is Verdict.WARN
    assert found.found == "called like the base model, which may answer instead: fresh"


def test_no_registry_ends_its_checks(tmp_path: Path) -> None:
    (finding,) = check_registry(tmp_path / "none.db")
    assert finding.verdict is Verdict.FAIL
    assert "no registry at" in finding.found


def test_a_registry_whose_adapters_cannot_be_read_fails(registry: Registry) -> None:
    change(registry, "DROP TABLE adapters")
    finding = list(check_registry(registry.path))[-1]
    assert finding.verdict is Verdict.FAIL
    assert "its tables are not as they were made" in finding.found


def test_a_pipe_in_place_of_the_registry_fails_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "traitroute.db")
    (finding,) = check_registry(tmp_path / "traitroute.db")
    assert finding.verdict is Verdict.FAIL
    assert "is a pipe, a socket or a device" in finding.found


def test_an_empty_registry_has_no_profile(tmp_path: Path) -> None:
    Registry.create(tmp_path / "empty.db").close()
    found = findings(tmp_path / "empty.db")
    assert found["profile"].verdict is Verdict.FAIL
    assert "run `traitroute profile`" in found["profile"].advice
    assert found["adapters"].verdict is Verdict.WARN


def test_a_corrupt_profile_fails(registry: Registry) -> None:
    change(registry, "UPDATE chunks SET data = x'00'")
    assert findings(registry.path)["profile"].verdict is Verdict.FAIL


def test_an_old_profile_is_warned_of(registry: Registry) -> None:
    change(registry, "UPDATE profiles SET created_at = '2020-01-01 00:00:00.000000'")
    assert findings(registry.path)["profile"].verdict is Verdict.WARN


def test_weights_newer_than_the_profile_are_named(registry: Registry) -> None:
    put(registry, "cook", seed=9)
    finding = findings(registry.path)["changes since"]
    assert finding.verdict is Verdict.WARN
    assert finding.found == "other weights than were measured: cook"


@pytest.mark.parametrize(
    ("name", "state", "told"),
    [
        ("fresh", AdapterState.READY, "ready but not in the profile: fresh"),
        ("cook", AdapterState.DISABLED, "in the profile but not ready, so never chosen: cook"),
    ],
)
def test_adapters_that_differ_from_the_profile_are_named(
    registry: Registry, name: str, state: AdapterState, told: str
) -> None:
    registry.set_state(name, state)
    finding = findings(registry.path)["changes since"]
    assert (finding.verdict, finding.found) == (Verdict.WARN, told)


def test_missing_and_changed_weights_are_named(registry: Registry) -> None:
    registry.set_state("fresh", AdapterState.DISABLED)
    shutil.rmtree(registry.weights.path(registry.adapter("coder").weights_digest))
    file = registry.weights.path(registry.adapter("cook").weights_digest) / "adapter_config.json"
    file.chmod(0o644)
    file.write_text(CONFIG.replace("8", "16"))
    finding = findings(registry.path)["weights"]
    assert (finding.verdict, finding.found) == (Verdict.FAIL, "missing or changed: coder, cook")


def test_reading_weights_tells_how_far_it_is(registry: Registry) -> None:
    told: list[tuple[int, int]] = []
    list(check_registry(registry.path, on_weights=lambda *given: told.append(given)))
    assert told == [(done, 4) for done in range(5)]


@pytest.fixture(scope="module")
def installed() -> list[Finding]:
    """What is said of the packages here; vLLM is imported for it, which takes a quarter of a minute."""
    environment = {"VLLM_PLUGINS": "traitroute", "TRAITROUTE_REGISTRY": "traitroute.db"}
    return list(check_packages(environment))


@pytest.mark.slow
@needs_vllm
def test_the_installed_vllm_and_its_plugin_fit(installed: list[Finding]) -> None:
    found = {finding.check: finding for finding in installed}
    assert {f.verdict for f in found.values()} == {Verdict.OK}
    assert list(found) == ["vllm", "vllm parts", "entry point", "VLLM_PLUGINS", "extras"]


@needs_vllm
def test_a_vllm_outside_the_range_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from traitroute.serving.vllm import plugin

    monkeypatch.setattr(plugin, "SUPPORTED_VLLM", "<0.1")
    finding = doctor._check_version()
    assert (finding.verdict, finding.advice) == (Verdict.FAIL, "install vllm<0.1")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "not set"),
        ({"VLLM_PLUGINS": "other"}, "does not name traitroute"),
        ({"VLLM_PLUGINS": "traitroute,other"}, "TRAITROUTE_REGISTRY is not set"),
    ],
)
def test_plugins_that_leave_us_out_are_warned_of(environment: dict[str, str], told: str) -> None:
    finding = doctor._check_plugins(environment)
    assert finding.verdict is Verdict.WARN
    assert told in finding.found


@pytest.mark.parametrize(
    ("here", "verdict"), [((), Verdict.FAIL), (("torch", "transformers", "peft", "uvicorn"), "warn")]
)
def test_without_vllm_the_embedded_server_remains(
    monkeypatch: pytest.MonkeyPatch, here: tuple[str, ...], verdict: str
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: name if name in here else None)
    finding, extras = check_packages({})
    assert (finding.check, finding.verdict) == ("vllm", verdict)
    assert extras.check == "extras"


@contextmanager
def upstream(status: int, body: bytes, seen: list[str | None], *, metrics: bytes | None = None) -> Iterator[str]:
    """A server that lists its models so, and its metrics; `seen` collects the keys it was given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("authorization"))
            told = {"/v1/models": (status, body), "/metrics": (200, metrics)}.get(self.path)
            code, content = (404, b"") if told is None or told[1] is None else told
            self.send_response(code)
            self.send_header("location", f"http://localhost:{server.server_address[1]}/metrics")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "verdict", "told"),
    [
        (200, b'{"data": [{"id": "tiny"}, {"id": "cook"}]}', Verdict.OK, "2 models: tiny, cook"),
        (200, b'{"data": []}', Verdict.WARN, "without any model"),
        (200, b"<html>", Verdict.FAIL, "no list of models"),
        (401, b"", Verdict.FAIL, "refuses the key"),
        (500, b"", Verdict.FAIL, "status 500"),
        (302, b"", Verdict.FAIL, "status 302"),
    ],
)
@pytest.mark.parametrize("end", ["", "/", "/v1"])
def test_an_upstream_is_asked_for_its_models(status: int, body: bytes, verdict: Verdict, told: str, end: str) -> None:
    seen: list[str | None] = []
    with upstream(status, body, seen) as address:
        finding = check_upstream(f"http://{address}{end}", key="k")
    assert (finding.verdict, set(seen)) == (verdict, {"Bearer k"})
    assert told in finding.found


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://host", "host:80", "http://[", ""])
def test_an_upstream_that_cannot_be_reached_fails(url: str) -> None:
    assert check_upstream(url).verdict is Verdict.FAIL


def test_a_proxy_is_named_without_its_password_and_asked_of_no_server_here(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    with upstream(200, b'{"data": [{"id": "tiny"}]}', seen) as address:
        monkeypatch.setenv("http_proxy", f"http://me:secret@{address}")
        monkeypatch.setenv("no_proxy", "")
        far = check_upstream("http://gpu.example:8000")
        assert len(seen) == 1
        near = check_upstream("http://127.0.0.1:9")
        assert len(seen) == 1
    assert f"through the proxy http://{address}" in far.found
    assert "proxy" not in near.found
    assert "secret" not in str(far)


@pytest.mark.parametrize(("reachable", "verdict"), [(b"0.0", Verdict.WARN), (b"1.0", Verdict.OK)])
def test_a_server_that_lost_its_registry_is_warned_of(reachable: bytes, verdict: Verdict) -> None:
    metrics = b"# HELP x\ntraitroute_registry_reachable " + reachable + b"\n"
    with upstream(200, b'{"data": [{"id": "tiny"}]}', [], metrics=metrics) as address:
        finding = check_upstream(f"http://{address}")
    assert finding.verdict is verdict
    assert ("its registry is away" in finding.found) == (verdict is Verdict.WARN)


def test_user_and_password_are_used_and_not_shown() -> None:
    seen: list[str | None] = []
    with upstream(200, b'{"data": [{"id": "tiny"}]}', seen) as address:
        finding = check_upstream(f"http://me:secret@{address}/v1")
    assert finding.verdict is Verdict.OK
    assert set(seen) == {"Basic bWU6c2VjcmV0"}
    assert "secret" not in str(finding)


@pytest.mark.parametrize("password", ["se/cret", "se?cret", "se#cret", "[se]cret", "secret\u2100"])
def test_no_part_of_a_password_is_shown_of_a_url_that_cannot_be_read(password: str) -> None:
    finding = check_upstream(f"http://me:{password}@127.0.0.1:9")
    assert finding.verdict is Verdict.FAIL
    assert "cret" not in str(finding) and "%40" in finding.advice


@pytest.mark.slow
def test_the_command_prints_a_line_a_check_and_fails_where_one_does(
    run: Run, registry: Registry, installed: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traitroute.cli.doctor.check_packages", lambda: installed)
    monkeypatch.setenv("A_KEY", "hush")
    with upstream(200, b'{"data": [{"id": "tiny"}]}', []) as address:
        sound = run(
            *("doctor", "--registry", registry.path, "--upstream", f"http://{address}"),
            *("--upstream-key-env", "A_KEY"),
        )
    assert "hush" not in sound.stdout
    # `fresh` has no weights.
    assert sound.returncode == 1
    for check in ("registry", "profile", "weights", "disk", "vllm", "extras", "upstream"):
        assert check in sound.stdout
    registry.set_state("fresh", AdapterState.DISABLED)
    ended = run("doctor", "--registry", registry.path, "--json")
    report = json.loads(ended.stdout)
    assert report["ok"] is (ended.returncode == 0)
    assert report["ok"] is not any(f["verdict"] == "fail" for f in report["findings"])
    assert {f["check"] for f in report["findings"]} >= {"registry", "profile", "weights", "disk"}
