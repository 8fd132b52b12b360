"""How a command finds its engine, and the report if it cannot use that engine."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import HoldfastCommand, SharedEngineCommand, assert_failed, next_line
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE


@pytest.mark.process
def test_a_command_uses_the_engine_of_a_running_service(embedded_holdfast: HoldfastCommand) -> None:
    port = free_port()
    embedded_holdfast.env["HOLDFAST_PORT"] = str(port)
    with embedded_holdfast.start("serve", stderr=subprocess.STDOUT) as service:
        assert service.stdout is not None
        line = ""
        while str(port) not in line:
            line = next_line(service.stdout)
            assert line, "the service ended"
        embedded_holdfast.write_products("p.jsonl", 1)
        imported = embedded_holdfast("import", "p.jsonl")
        audited = embedded_holdfast("audit")
        events = embedded_holdfast("events")
        assert service.poll() is None
        service.terminate()
        service.communicate(timeout=PATIENCE)
    assert (imported.returncode, imported.stdout) == (0, "1 added, 0 already existed, 0 bad rows.\n")
    assert (audited.returncode, audited.stdout.splitlines()[0]) == (0, "1 product, 0 orders, 0 of them pending.")
    assert json.loads(events.stdout)["event"] == "product_added"
    assert embedded_holdfast("audit").stdout == audited.stdout  # this time with its own engine


@pytest.mark.parametrize(("args", "code"), [(("audit",), 3), (("events", "--follow"), 1), (("import", "p.jsonl"), 1)])
def test_an_unreachable_redis_is_reported_in_one_line(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    command = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=url, HOLDFAST_REDIS_TIMEOUT="0.2")
    command.write_products("p.jsonl", 1)
    assert_failed(command(*args), code, "127.0.0.1")


@pytest.mark.parametrize(("args", "code"), [(("audit",), 3), (("events",), 1), (("export", "orders"), 1)])
def test_a_missing_data_directory_is_reported_and_not_created(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    command = HoldfastCommand(tmp_path)
    assert_failed(command(*args), code, "the data directory data does not exist")
    assert list(tmp_path.iterdir()) == []


def test_a_redis_with_too_little_durability_is_reported_in_one_line(holdfast: SharedEngineCommand) -> None:
    holdfast.env["HOLDFAST_DURABILITY"] = "always"
    assert_failed(holdfast("audit"), 3, "HOLDFAST_DURABILITY is 'always'")


def test_data_of_a_newer_version_is_reported_in_one_line(holdfast: SharedEngineCommand) -> None:
    holdfast.redis.hset("{cli}:meta", "layout", 2)
    assert_failed(holdfast("export", "products"), 1, "schema version 2")
