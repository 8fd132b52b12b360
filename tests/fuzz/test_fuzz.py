"""The short form of `make fuzz`."""

import re

import pytest

from service.api.routes import CALLS
from tests.fuzz.run import run

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_the_service_does_what_its_description_says() -> None:
    done, calls = run("--max-examples=10", "--seed=1")
    assert done.returncode == 0, done.stdout[-5000:]
    assert calls | {("GET", "/events")} == {(call.method, call.path) for call in CALLS}
    [cases] = re.findall(r"(\d+) generated", done.stdout)
    assert int(cases) > 500
