"""The short form of `make fuzz`. What each fuzzer finds: test_fuzzers.py."""

import re

import pytest

from service.api.routes import CALLS
from tests.fuzz import from_description, mutations, sockets
from tests.fuzz.targets import TARGETS


@pytest.mark.process
@pytest.mark.slow
def test_the_service_does_what_its_description_says() -> None:
    done, calls = from_description.run("--max-examples=1", "--seed=1")
    assert done.returncode == 0, done.stdout[-5000:]
    assert calls | {("GET", "/events")} == {(call.method, call.path) for call in CALLS}
    [cases] = re.findall(r"(\d+) generated", done.stdout)
    assert int(cases) > 200
    assert "✅ Stateful" in done.stdout  # requests that use ids of the answers before them


@pytest.mark.process
@pytest.mark.slow
def test_thousands_of_requests_of_good_bad_and_broken_clients_are_answered_as_documented() -> None:
    report = sockets.run(seed=1, cases=3000)
    assert report.findings == [], "\n".join(report.findings)
    assert len(report.placed) > 80
    assert len(report.refused) > 80
    assert len(report.statuses) > 25


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_read_as_other_parsers_read_it(name: str) -> None:
    run = mutations.run(name, seed=1, cases=2000)
    assert run.finding == ""
    assert run.cases == 2000
