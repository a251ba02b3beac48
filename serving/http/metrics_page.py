"""The page at `/metrics` of the servers that are wholly ours; vLLM has its own."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import Response

from .errors import error_response


@dataclass(frozen=True)
class Reading:
    """What is read as the page is asked for: a gauge of one value, or of one for each value of its `label`."""

    name: str
    help: str
    value: float | Mapping[str, float]
    label: str = ""


def metrics_page(*readings: Reading) -> Response:
    """All that this process counted, and the `readings`, in Prometheus' text form."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
    except ImportError:
        return error_response(404, "no metrics here: pip install prometheus_client")
    ours = CollectorRegistry()
    for reading in readings:
        labels = (reading.label,) if reading.label else ()
        gauge = Gauge(reading.name, reading.help, labels, registry=ours)
        if isinstance(reading.value, Mapping):
            for name, value in reading.value.items():
                gauge.labels(name).set(value)
        else:
            gauge.set(reading.value)
    text = generate_latest() + generate_latest(ours)
    # As `media_type` it would be given a second charset.
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})
