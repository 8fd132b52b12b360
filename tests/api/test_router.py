"""CallRouter: its dictionaries find the same call as the search of Starlette, which tries one route after another."""

import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.api import router
from service.api.call import Call
from service.api.router import CallRouter
from service.api.routes import CALLS
from service.domain.errors.request import MethodNotAllowed, PathNotFound

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "get", ""])
NAMES = sorted({name for call in CALLS for name in call.path.split("/")})
PARTS = st.sampled_from([*NAMES, *NAMES, "1", "{}", "%7B%7D", "1\n", " ", "ä☕", "\x00", "..", "shops"]) | st.text(
    max_size=3
)
PATHS = st.lists(PARTS, max_size=4).map(lambda parts: "/" + "/".join(parts)) | st.text(max_size=9)


class Found(Exception):
    """The call of a request was found. The arguments are its method, its path, and the parameters of the path."""


class Finding:
    """Takes the place of the endpoint of a call."""

    def __init__(self, call: Call, _: object) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise Found(self._call.method, self._call.path, scope.get("path_params", {}))


@pytest.fixture(scope="module")
def calls() -> CallRouter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router, "_endpoint", Finding)
        return CallRouter(CALLS, no_lifespan)


@asynccontextmanager
async def no_lifespan(_: object) -> AsyncIterator[None]:
    yield


def outcome(work: Coroutine[Any, Any, None]) -> tuple[object, ...]:
    """Run the work, and return what it found. It never has to wait."""
    try:
        work.send(None)
    except Found as found:
        return found.args
    except MethodNotAllowed as error:
        return ("not allowed", *error.allowed)
    except PathNotFound:
        return ("not found",)
    raise AssertionError("the router has found no call, and has raised no error")


async def nothing(*_: object) -> Any:
    return None


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_each_call_is_found_without_a_search(call: Call, calls: CallRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_search", lambda *_: pytest.fail("the dictionaries do not have it"))
    scope = {"type": "http", "method": call.method, "path": re.sub(r"\{\w+\}", "1", call.path), "root_path": "/shop"}
    found: Any = calls(scope, nothing, nothing)
    assert outcome(found)[:2] == (call.method, call.path)


@settings(deadline=None)
@given(METHODS, PATHS, st.sampled_from(["", "/shop", "/shops/fair"]))
@example("GET", "/products/{}/stock", "")
@example("GET", "/products//stock", "")
@example("HEAD", "/orders/1\n", "")
@example("PUT", "/orders/{}", "/shop")
@example("POST", "/orders/1/returns", "/shops/fair")
def test_the_dictionaries_find_what_the_search_finds(calls: CallRouter, method: str, path: str, root_path: str) -> None:
    scope = {"type": "http", "method": method, "path": path, "root_path": root_path}
    by_search = outcome(calls._search({**scope}, nothing, nothing))
    found: Any = calls({**scope}, nothing, nothing)
    assert outcome(found) == by_search
