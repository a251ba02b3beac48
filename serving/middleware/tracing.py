"""A span `traitroute.route` around each choice, where OpenTelemetry's API is installed and a tracer is configured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers

from ..state import BASE
from .choice import Choice


class Tracing:
    """Opens spans, as children of the request's `traceparent` unless there is a span already."""

    def __init__(self) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            self._trace = None
            return
        self._trace, self._propagate = trace, propagate
        self._tracer = trace.get_tracer("traitroute")

    @contextmanager
    def span(self, headers: Headers) -> Iterator[Callable[[Choice], None]]:
        """Open a span; call what it gives with the choice made."""
        if self._trace is None:
            yield _ignore
            return
        around = self._trace.get_current_span().get_span_context().is_valid
        parent = None if around else self._propagate.extract(headers)
        with self._tracer.start_as_current_span("traitroute.route", context=parent) as span:

            def tell(choice: Choice) -> None:
                span.set_attributes(
                    {
                        "traitroute.adapter": choice.adapter or BASE,
                        "traitroute.gain": choice.gain,
                        "traitroute.reason": choice.reason,
                        "traitroute.kind": choice.kind,
                        "traitroute.sticky": choice.sticky,
                    }
                )

            yield tell


def _ignore(_: Choice) -> None:
    pass
