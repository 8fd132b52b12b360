"""Check that the private parts of uvicorn that Holdfast uses exist, with the expected signatures.

A failure here names what a new release of uvicorn has changed. Without it, other tests would fail for no clear reason.
"""

import asyncio
import inspect
import re
import threading
from typing import Any

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.server import http_protocol, workers
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
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


async def test_uvicorn_makes_a_connection_with_a_function_and_stops_it_with_shutdown() -> None:
    """`loaded_app`, `root_path`, `connections` and `tasks` are what the function needs."""
    arguments: list[dict[str, Any]] = []
    stopped: list[object] = []

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def shutdown(self) -> None:
            stopped.append(self)
            states[0].connections.clear()
            self.transport.close()  # from Python 3.12 on, a server waits for its connections

    connection = Connection()
    states: list[ServerState] = []

    def make(**values: Any) -> asyncio.Protocol:
        arguments.append(values)
        return connection

    async def app(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(0)

    config = uvicorn.Config(app, port=0, http=make, lifespan="off", log_config=None, timeout_graceful_shutdown=5)  # type: ignore[arg-type]
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    states.append(server.server_state)
    _, writer = await asyncio.open_connection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
    await eventually(lambda: arguments, "the connection")
    [values] = arguments
    assert set(values) - {"_loop"} == {"config", "server_state", "app_state"}
    assert (config.loaded_app is not None, config.root_path) == (True, "")
    assert values["server_state"].tasks == set()
    values["server_state"].connections.add(connection)
    await server.shutdown()
    writer.close()
    assert stopped == [connection]


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
