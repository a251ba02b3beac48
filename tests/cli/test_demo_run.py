"""The main job, whole but small: train, measure, fit, serve with vLLM, route, stop."""

import re

import pytest
from traitroute.adapters import AdapterState, Registry

from ..real_run import RealDemo

pytest.importorskip("vllm", reason="needs vLLM: pip install 'traitroute[serve]'")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]


def test_the_whole_line_runs_and_leaves_nothing_running(real_demo: RealDemo) -> None:
    for stage in ("train adapters", "measure cells", "start vllm serve", "send requests"):
        assert f"\n{stage}: begins\n" in real_demo.printed
        assert f"\n{stage}: done in " in real_demo.printed
    assert "demo: 2 adapters, 14 requests" in real_demo.printed
    chosen = re.findall(r"│ (sentiment3|toxicity|base) +│ [+-]\d", real_demo.printed)
    assert len(chosen) == 14
    assert {"sentiment3", "toxicity"} & set(chosen[:4])
    # Five tasks tell everyday requests from others by halves (docs/routing.md).
    assert chosen[-4:].count("base") >= 2
    with Registry.open(real_demo.registry, read_only=True) as registry:
        assert [a.state for a in registry.adapters()] == [AdapterState.READY] * 2
    assert real_demo.left == ""
