"""Ray nodes for tests, as processes of this machine: asked for by a variable, and patient with a busy machine."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from traitroute.profiling.execution.cluster import QUICK
from traitroute.serving.vllm import free_port

ASKED = "TRAITROUTE_TEST_RAY"
NOT_ASKED = f"starts Ray nodes, which want a quiet machine: set {ASKED}=1"
AGENTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
"""Ports that a node would otherwise wait for its agents to choose, for 15 seconds, which a busy machine exceeds."""
PATIENT = {"RAY_agent_register_timeout_ms": "300000"}
"""And so it does the 30 seconds in which they must have begun."""


TRIES = 3


def started(start: Callable[[], Any]) -> Any:
    """What `start` gives; Ray gives up after 30 seconds, which is no fault of ours, and is asked again."""
    for _ in range(TRIES):
        try:
            return start()
        except Exception as exc:
            if "timed out during startup" not in str(exc):
                raise
    pytest.skip("the machine is too busy for Ray to start a node within 30 seconds")


def ports() -> dict[str, int]:
    """A free port for each agent."""
    return {name: free_port() for name in AGENTS}


@contextmanager
def head_node(variables: Mapping[str, str], **settings: Any) -> Iterator[Any]:
    """A cluster of a head, which has `variables` in its environment, and so have the nodes that are added."""
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    before = dict(os.environ)
    os.environ.update(QUICK | PATIENT | dict(variables))
    head = {"include_dashboard": False, **ports(), **settings}
    cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)
