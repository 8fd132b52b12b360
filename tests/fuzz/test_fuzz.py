"""The short form of `make fuzz`."""

import re

import pytest

from tests.fuzz.run import run

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_the_service_does_what_its_description_says() -> None:
    done = run("--max-examples=10", "--seed=1")
    assert done.returncode == 0, done.stdout[-5000:]
    tested, selected = re.findall(r"(?:Tested|Selected): (\d+)", done.stdout)[::-1]
    assert tested in (selected, selected.partition("/")[0]), done.stdout[-2000:]
    [cases] = re.findall(r"(\d+) generated", done.stdout)
    assert int(cases) > 500
