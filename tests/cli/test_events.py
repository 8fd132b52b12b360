"""`holdfast events`: the printed events, and --follow."""

import json
import signal
import time

import pytest

from tests.support.command_line import SharedEngineCommand, next_line
from tests.support.waiting import PATIENCE


def test_events_are_printed_from_the_first_event_or_after_a_given_id(holdfast: SharedEngineCommand) -> None:
    ids = [holdfast.add_event(number) for number in range(3)]
    result = holdfast("events")
    assert (result.returncode, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events == [
        {"id": event_id, "event": "stock_moved", "product": 1, "change": number, "reason": "counted", "stock": number}
        for number, event_id in enumerate(ids)
    ]
    result = holdfast("events", "--after", ids[1])
    assert (result.returncode, result.stderr) == (0, "")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids[2:]


@pytest.mark.parametrize("after", ["0", "00-0", "0-00"])
def test_each_spelling_of_the_start_of_the_stream_gives_no_warning(holdfast: SharedEngineCommand, after: str) -> None:
    event_id = holdfast.add_event(1)
    result = holdfast("events", "--after", after)
    assert (result.returncode, result.stderr) == (0, "")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [event_id]


@pytest.mark.parametrize("after", ["yesterday", "9" * 30, "\N{ARABIC-INDIC DIGIT SEVEN}"])
def test_an_invalid_event_id_is_refused(holdfast: SharedEngineCommand, after: str) -> None:
    result = holdfast("events", f"--after={after}")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "after" in result.stderr
    assert "Traceback" not in result.stderr


def test_follow_prints_new_events_until_ctrl_c(holdfast: SharedEngineCommand) -> None:
    old = holdfast.add_event(1)
    with holdfast.start("events", "--follow") as following:
        assert following.stdout is not None
        assert json.loads(next_line(following.stdout))["id"] == old
        for number in range(2, 5):
            new = holdfast.add_event(number)
            assert json.loads(next_line(following.stdout))["id"] == new
        following.send_signal(signal.SIGINT)
        rest, errors = following.communicate(timeout=PATIENCE)
    assert (rest, errors) == ("", "")
    assert following.returncode == 130


def test_follow_waits_longer_than_the_redis_timeout(holdfast: SharedEngineCommand) -> None:
    holdfast.env["HOLDFAST_REDIS_TIMEOUT"] = "0.2"
    first = holdfast.add_event(1)
    with holdfast.start("events", "--follow", "--after", first) as following:
        assert following.stdout is not None
        deadline = time.monotonic() + PATIENCE
        holdfast.redis.config_resetstat()
        while int(dict(holdfast.redis.info("commandstats")).get("cmdstat_xread", {"calls": 0})["calls"]) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        new = holdfast.add_event(2)
        assert json.loads(next_line(following.stdout))["id"] == new
        following.send_signal(signal.SIGINT)
        assert following.communicate(timeout=PATIENCE) == ("", "")


def test_follow_ends_without_an_error_when_its_output_is_closed(holdfast: SharedEngineCommand) -> None:
    holdfast.add_event(1)
    with holdfast.start("events", "--follow") as following:
        assert following.stdout is not None
        assert next_line(following.stdout)
        following.stdout.close()
        holdfast.add_event(2)
        assert following.wait(PATIENCE) == 0
        assert following.stderr is not None
        assert following.stderr.read() == ""
