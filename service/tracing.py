"""Traces: sends a span for each HTTP request and each Redis command to a collector (OTLP over HTTP).

OpenTelemetry is only imported if HOLDFAST_OTLP_ENDPOINT is set: `pip install 'holdfast[otel]'`.
"""

import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_SECONDS: Final = 5
"""Time that a collector may take to accept spans, also when the service stops."""

_REPEAT_SECONDS: Final = 60.0
"""Pause between two log lines about a collector that does not answer."""


def missing_packages() -> bool:
    """Return whether the packages of the extra `otel` are not installed."""
    try:
        return find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None
    except ModuleNotFoundError:
        return True


def start_tracing(endpoint: str, shop: str, version: str) -> "TracerProvider":
    """Return what makes spans and sends them to this collector, such as `http://localhost:4318`, in the background."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    logging.getLogger("opentelemetry").addFilter(_OncePerMinute())
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(name).addFilter(_OncePerMinute())
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
    return tracer_provider(exporter, shop, version)


def tracer_provider(exporter: "SpanExporter", shop: str, version: str) -> "TracerProvider":
    """Return what makes spans and gives them to an exporter, in batches, in a thread of its own."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "holdfast", "service.version": version, "service.namespace": shop})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_SECONDS * 1000))
    return provider


class _OncePerMinute(logging.Filter):
    """Passes one line a minute: a collector that is away would fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if time.monotonic() < self._next_at:
            return False
        self._next_at = time.monotonic() + _REPEAT_SECONDS
        return True
