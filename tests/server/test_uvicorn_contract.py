"""Check that the private parts of uvicorn that Holdfast uses exist, with the expected signatures.

A failure here names what a new release of uvicorn has changed. Without it, other tests would fail for no clear reason.
"""

import asyncio
import inspect
import re
import threading
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.server import http_protocol, workers


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (HttpToolsProtocol, "data_received", ["self", "data"]),
        (HttpToolsProtocol, "on_headers_complete", ["self"]),
        (HttpToolsProtocol, "on_message_complete", ["self"]),
        (HttpToolsProtocol, "_unsupported_upgrade_warning", ["self"]),
        (Multiprocess, "__init__", ["self", "config", "sockets"]),
        (Multiprocess, "init_processes", ["self"]),
        (Multiprocess, "terminate_all", ["self"]),
        (Multiprocess, "keep_subprocess_alive", ["self"]),
        (Multiprocess, "run", ["self"]),
        (Process, "__init__", ["self", "config", "sockets"]),
        (Process, "start", ["self"]),
        (Process, "join", ["self"]),
    ],
)
def test_a_method_has_the_expected_parameters(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


async def test_a_connection_and_its_request_have_the_expected_attributes() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(0)

    config = uvicorn.Config(app, log_config=None)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {})
    transport = Mock(**{"is_closing.return_value": False, "get_extra_info.return_value": None})
    protocol.connection_made(transport)
    protocol.data_received(b"GET /orders?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert protocol.transport is transport
    assert protocol.url == b"/orders?limit=1"
    assert protocol.headers == [(b"host", b"x")]
    assert protocol.parser.should_upgrade() is False
    cycle = protocol.cycle
    assert isinstance(cycle, RequestResponseCycle)
    assert cycle.scope is protocol.scope
    assert cycle.transport is transport
    assert cycle.flow.write_paused is False
    assert isinstance(cycle.default_headers, list)
    assert isinstance(cycle.message_event, asyncio.Event)
    assert callable(cycle.on_response)
    states = (cycle.disconnected, cycle.keep_alive, cycle.waiting_for_100_continue)
    assert states == (False, True, False)
    assert (cycle.response_started, cycle.response_complete) == (False, False)
    assert STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    await asyncio.gather(*protocol.tasks, return_exceptions=True)


def test_the_supervisor_and_a_worker_have_the_expected_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the supervisor would take this process's signals
    config = uvicorn.Config("unused", workers=2, log_config=None)
    supervisor = Multiprocess(config, [])
    assert (supervisor.config, supervisor.sockets, supervisor.processes) == (config, [], [])
    assert isinstance(supervisor.should_exit, threading.Event)
    worker = Process(config, [])
    assert worker.process.is_alive() is False
    assert (worker.pid, worker.exitcode) == (None, None)
    assert STARTUP_FAILURE == 3


@pytest.mark.parametrize("module", [http_protocol, workers])
def test_the_docstring_of_a_module_lists_everything_of_uvicorn_that_it_overrides_or_imports(module: object) -> None:
    listed = set(re.findall(r"\w+", inspect.getdoc(module) or ""))
    source = inspect.getsource(module)  # type: ignore[arg-type]
    imported = {
        name
        for line in re.findall(r"^from uvicorn\.\S+ import (.*)$", source, re.MULTILINE)
        for name in line.split(", ")
    }
    overridden = set(re.findall(r"super\(\)\.(\w+)\(", source))
    assert imported
    assert imported | overridden <= listed
