"""Traces: what a collector gets from a real service, and that a collector that is away disturbs nobody."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import free_port
from tests.support.service_process import StartService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for group in request.resource_spans:
                    collector.resources.append(attributes_of(group.resource))
                    for scope in group.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def span(self, name: str) -> Any:
        [span] = [span for span in self.spans if span.name == name]
        return span


def attributes_of(owner: Any) -> dict[str, Any]:
    return {
        item.key: item.value.string_value if item.value.HasField("string_value") else item.value.int_value
        for item in owner.attributes
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def test_a_collector_gets_each_request_with_its_commands_and_the_log_names_the_same_trace(
    start_ready_service: StartService, collector: Collector
) -> None:
    service = start_ready_service(otlp_endpoint=collector.url)
    mugs = service.add_product(stock=5)
    service.order(mugs, 2, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
    assert service.order(mugs, 9).status_code == 409
    service.process.send_signal(15)
    assert service.wait_for_exit() == 0  # the last spans are sent before the end
    placed = next(span for span in collector.spans if span.parent_span_id.hex() == PARENT_ID)
    assert (placed.name, placed.trace_id.hex(), placed.kind) == ("POST /orders", TRACE_ID, 2)
    facts = attributes_of(placed)
    assert (facts["http.route"], facts["http.response.status_code"], facts["url.path"]) == ("/orders", 201, "/orders")
    scripts = [span for span in collector.spans if span.name == "place_order" and span.trace_id == placed.trace_id]
    assert [span.parent_span_id for span in scripts] == [placed.span_id]
    assert attributes_of(scripts[0])["db.stored_procedure.name"] == "place_order"
    refused = next(span for span in collector.spans if attributes_of(span).get("error.type") == "insufficient-stock")
    [line] = service.logged("order_refused")
    assert (line["trace_id"], line["span_id"]) == (refused.trace_id.hex(), refused.span_id.hex())
    assert collector.resources[0]["service.name"] == "holdfast"
    assert not [span for span in collector.spans if span.name == "find_due_holds"]  # the sweeper's, without a request


def test_a_collector_that_is_away_disturbs_no_request_and_is_logged_once(start_ready_service: StartService) -> None:
    service = start_ready_service(otlp_endpoint=f"http://127.0.0.1:{free_port()}")
    mugs = service.add_product(stock=50)
    for _ in range(20):
        assert service.order(mugs, 1).status_code == 201
    service.process.send_signal(15)
    wait_until(lambda: service.process.poll() is not None, "the end of the service")
    assert service.process.poll() == 0
    assert len([line for line in service.logs if "trace" in line["message"].lower()]) <= 2
