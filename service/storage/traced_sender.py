"""A connection that makes a span of each command of a request, if traces are on.

https://opentelemetry.io/docs/specs/semconv/database/redis/
"""

from asyncio import Future
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.storage.scripts import load_scripts

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from service.storage.cluster import Route
    from service.storage.connection import MultiplexedConnection


class TracedSender:
    """Sends commands over a connection. A command outside of a request, such as the sweeper's, gets no span."""

    def __init__(self, connection: "MultiplexedConnection | Route", tracer: "Tracer") -> None:
        """Trace the commands of this connection."""
        from opentelemetry.trace import get_current_span

        self._connection = connection
        self._tracer = tracer
        self._current_span = get_current_span
        self._script_names: Mapping[object, str] = {script.sha: name for name, script in load_scripts().items()}

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> "Future[Any]":
        """Send a command, as MultiplexedConnection.send does."""
        if not self._current_span().is_recording():
            return self._connection.send(*command, safe_to_repeat=safe_to_repeat)
        from opentelemetry.trace import SpanKind

        name = str(command[0])
        attributes = {"db.system.name": "redis", "db.operation.name": name}
        script = self._script_names.get(command[1]) if name == "EVALSHA" else None
        if script is not None:
            attributes["db.stored_procedure.name"] = script
        span = self._tracer.start_span(script or name, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            future = self._connection.send(*command, safe_to_repeat=safe_to_repeat)
        except Exception as error:
            _end(span, error)
            raise
        future.add_done_callback(lambda done: _end(span, None if done.cancelled() else done.exception()))
        return future


def _end(span: "Span", error: BaseException | None) -> None:
    if error is not None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR, str(error)[:200])
    span.end()
