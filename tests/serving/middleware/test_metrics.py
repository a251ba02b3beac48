import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from traitroute.serving.middleware import record as module
from traitroute.serving.middleware.choice import Choice

client = pytest.importorskip("prometheus_client")

CHOSEN = Choice("code", 0.134, "chosen", "adapter", seconds=0.002)


def registry_after(*choices: Choice) -> Any:
    registry = client.CollectorRegistry()
    metrics = module.PrometheusMetrics(registry)
    for choice in choices:
        metrics.choice(choice)
    return registry


def test_a_choice_is_counted_by_adapter_and_kind_with_gain_and_time() -> None:
    registry = registry_after(CHOSEN, CHOSEN, Choice.base("base: none"))
    count = registry.get_sample_value
    assert count("traitroute_decisions_total", {"adapter": "code", "kind": "adapter"}) == 2
    assert count("traitroute_decisions_total", {"adapter": "base", "kind": "base"}) == 1
    assert count("traitroute_predicted_gain_sum") == pytest.approx(0.268)
    assert count("traitroute_routing_seconds_count") == 2
    assert count("traitroute_fallbacks_total", {"kind": "base"}) is None


def test_failures_and_sticky_hits_are_counted() -> None:
    failed = Choice(None, 0.0, "load-failed: x", "load-failed", unloaded="code")
    registry = registry_after(failed, Choice("code", 0.1, "session", "adapter", sticky=True))
    count = registry.get_sample_value
    assert count("traitroute_load_failures_total", {"adapter": "code"}) == 1
    assert count("traitroute_fallbacks_total", {"kind": "load-failed"}) == 1
    assert count("traitroute_sticky_hits_total") == 1


def test_adapters_beyond_the_limit_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ADAPTERS", 3)
    registry = registry_after(*(Choice(f"a{i}", 0.1, "", "adapter") for i in range(9)))
    names = {
        sample.labels["adapter"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "traitroute_decisions_total"
    }
    assert names == {"a0", "a1", "other"}


def test_requests_are_counted_in_the_default_registry(server: Any) -> None:
    def count() -> float:
        labels = {"adapter": "code", "kind": "adapter"}
        return client.REGISTRY.get_sample_value("traitroute_decisions_total", labels) or 0

    before = count()
    server.chat("code")
    assert count() == before + 1


@pytest.mark.slow
def test_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    count = (
        "from traitroute.serving.middleware.record import open_metrics\n"
        "from traitroute.serving.middleware.choice import Choice\n"
        "open_metrics().choice(Choice('code', 0.1, '', 'adapter', seconds=0.001))\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", count], env=environment, check=True)
    show = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry(); multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    command = [sys.executable, "-c", show]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 'traitroute_decisions_total{adapter="code",kind="adapter"} 2.0' in shown.stdout
    assert "traitroute_routing_seconds_count 2.0" in shown.stdout


@pytest.mark.slow
def test_without_the_client_library_nothing_is_counted_and_all_works() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "sys.modules['opentelemetry'] = None\n"
        "from traitroute.serving.middleware import RoutingMiddleware\n"
        "from traitroute.serving.state import ServerState\n"
        "from traitroute.serving.middleware.record import open_metrics\n"
        "from traitroute.serving.middleware.choice import Choice\n"
        "RoutingMiddleware(None, state=ServerState())\n"
        "open_metrics().choice(Choice.base('base: none')); open_metrics().load_failure('a')\n"
        "print(type(open_metrics()).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "NoMetrics"


@pytest.mark.slow
def test_importing_the_middleware_loads_neither_library() -> None:
    code = (
        "import sys, traitroute.serving.middleware\nprint(*{'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
