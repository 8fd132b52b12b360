"""Holdfast's HTTP protocol for uvicorn's server, which opens the sockets, runs the event loop and stops it.

These parts of uvicorn are used here, although its documentation does not promise them; a test checks that they are
there (tests/server/test_uvicorn_contract.py):

- `Config(http=...)` may be a function of `config`, `server_state`, `app_state` and `_loop` that returns a protocol;
- `Config`: `loaded_app`, `root_path`
- `ServerState`: `connections`, whose `shutdown()` is called when the server stops, and `tasks`
"""

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.server.http_connection import HttpConnection
from service.server.http_server import HttpServer, Timeouts, max_connections


class HttpProtocol:
    """Makes the connections of a worker. The supervisor sends it to each worker process, before its first call."""

    def __init__(self, timeouts: Timeouts, connections: int) -> None:
        """Give each worker these timeouts, and at most this number of connections."""
        self._timeouts = timeouts
        self._connections = connections
        self._server: HttpServer | None = None

    def __call__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> HttpConnection:
        """Return the protocol of a new connection."""
        if self._server is None:
            self._server = HttpServer(
                app=config.loaded_app,
                app_state=app_state,
                root_path=config.root_path,
                uvicorn_state=server_state,
                timeouts=self._timeouts,
                max_connections=max_connections(self._connections),
            )
            self._server.start()
        return HttpConnection(self._server)


default_protocol = HttpProtocol(Timeouts(), 10_000)
"""For `uvicorn --http service.server.http_protocol:default_protocol`, as bench/ starts it."""
