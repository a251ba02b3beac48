"""The Grafana dashboard asks for what the servers count, and for nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from traitroute.serving.engines.probe import Effect
from traitroute.serving.middleware.choice import Choice
from traitroute.serving.middleware.record import PrometheusMetrics
from traitroute.serving.proof import Proof, Verdict

prometheus = pytest.importorskip("prometheus_client")

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana.json"
LANGUAGE = {"max", "min", "sum", "by", "rate", "histogram_quantile", "or", "vector"}


@pytest.fixture
def labels_of() -> dict[str, set[str]]:
    """What is counted: each sample's name with its labels."""
    registry = prometheus.CollectorRegistry()
    metrics = PrometheusMetrics(registry)
    fields: dict[str, Any] = {"reason": "r", "sticky": True, "seconds": 0.001}
    metrics.choice(Choice("code", 0.1, kind="adapter", **fields))
    metrics.choice(Choice(None, 0.0, kind="load-failed", unloaded="code", **fields))
    metrics.proof("code", Proof(Verdict.APPLIED, "r", Effect(1.0, 0.1)))
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("query", queries())
def test_every_query_asks_for_a_metric_and_labels_that_exist(query: str, labels_of: dict[str, set[str]]) -> None:
    grouped = set(re.findall(r"by \((\w+)\)", query)) - {"instance"}
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \(\w+\)", "", query)
    names = set(re.findall(r"[a-zA-Z_:]\w*", bare)) - LANGUAGE
    assert names and names <= set(labels_of)
    asked = set(re.findall(r"(\w+)(?:=~|!=|=)\"", query)) - {"job", "instance"}
    assert grouped | asked <= set().union(*(labels_of[name] for name in names))


def test_every_metric_is_shown(labels_of: dict[str, set[str]]) -> None:
    shown = " ".join(queries())
    counted = {name for name in labels_of if not name.endswith("_created")}
    assert {name for name in counted if name not in shown} == set()
