from collections.abc import Iterator
from typing import Any

import pytest

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def exporter() -> Any:
    exporter = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: Any) -> Iterator[Any]:
    exporter.clear()
    yield exporter


def test_each_choice_is_a_span_with_adapter_gain_and_reason(server: Any, spans: Any) -> None:
    server.chat("code", headers={"traceparent": PARENT})
    [span] = spans.get_finished_spans()
    assert span.name == "traitroute.route"
    assert span.attributes["traitroute.adapter"] == "code"
    assert span.attributes["traitroute.gain"] == pytest.approx(0.134)
    assert span.attributes["traitroute.kind"] == "adapter"
    assert span.attributes["traitroute.reason"].startswith("chosen for")
    assert format(span.parent.span_id, "016x") == PARENT.split("-")[2]


def test_a_span_already_open_is_the_parent(server: Any, spans: Any) -> None:
    with trace.get_tracer("test").start_as_current_span("around") as around:
        server.chat("code", headers={"traceparent": PARENT})
    routed = spans.get_finished_spans()[0]
    assert routed.parent.span_id == around.get_span_context().span_id


def test_other_models_open_no_span(server: Any, spans: Any) -> None:
    server.chat("code", model="tiny")
    assert spans.get_finished_spans() == ()
