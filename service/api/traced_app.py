"""The layer around the application that makes a span of each request, if traces are on.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.request import TRACE, RequestInfo

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class TracedApp:
    """Makes a span of each request. Its parent is that of the `traceparent` header, if there is one."""

    def __init__(self, app: ASGIApp, tracer: "Tracer") -> None:
        """Trace this application."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self._tracer = tracer
        self._read_context = TraceContextTextMapPropagator().extract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, StatusCode

        fields = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        method: str = scope["method"]
        with self._tracer.start_as_current_span(
            method,
            context=self._read_context(fields),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": scope["path"], "url.scheme": "http"},
        ) as span:
            context = span.get_span_context()
            scope[TRACE] = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
            await self.app(scope, receive, send)
            info: RequestInfo = scope["request_info"]
            if info.route:
                span.update_name(f"{method} {info.route}")
                span.set_attribute("http.route", info.route)
            span.set_attribute("http.response.status_code", info.status)
            span.set_attribute("holdfast.request_id", info.id)
            if info.reason:
                span.set_attribute("error.type", info.reason)
            if info.status >= 500:
                span.set_status(StatusCode.ERROR)
