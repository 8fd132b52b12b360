"""The replacement for redis-cli prints what redis-cli 7.0.15 printed. So does redis-cli, if it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from service.engine.launcher import run_engine
from tests.docs import redis_cli

TEN = "\n".join(f'{number + 1:>2}) "{number}"' for number in range(10))

# A command, and what is printed for it: into a pipe, on a terminal, and as JSON.
PRINTED = [
    ("PING", "PONG", "PONG", '"PONG"'),
    ('SET text a_"quoted"\nline', "OK", "OK", '"OK"'),
    ("GET text", 'a_"quoted"\nline', r'"a_\"quoted\"\nline"', r'"a_\"quoted\"\nline"'),
    ("GET absent", "", "(nil)", "null"),
    ("RPUSH list 0 1 2 3 4 5 6 7 8 9", "10", "(integer) 10", "10"),
    ("LRANGE list 0 -1", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9", TEN, '["0","1","2","3","4","5","6","7","8","9"]'),
    ("LRANGE list 5 1", "", "(empty array)", "[]"),
    ("XADD stream 1-1 a 1", "1-1", '"1-1"', '"1-1"'),
    (
        "XREAD STREAMS stream 0",
        "stream\n1-1\na\n1",
        '1) 1) "stream"\n   2) 1) 1) "1-1"\n         2) 1) "a"\n            2) "1"',
        '{"stream":[["1-1",["a","1"]]]}',
    ),
    ("HSET hash field value", "1", "(integer) 1", "1"),
    ("HGETALL hash", "field\nvalue", '1) "field"\n2) "value"', '{"field":"value"}'),
    ("ZADD zset 1.5 a", "1", "(integer) 1", "1"),
    ("ZRANGE zset 0 -1 WITHSCORES", "a\n1.5", '1) "a"\n2) "1.5"', '[["a",1.5]]'),
    ("--scan --pattern z*", "zset", '"zset"', "zset"),
]


@pytest.mark.process
def test_the_replacement_for_redis_cli_prints_the_expected_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_engine(tmp_path / "data", "none") as url:
        where = ["-s", url.removeprefix("unix://")]
        for number, options in enumerate(([], ["--no-raw"], ["--json"]), 1):
            for command, *expected in PRINTED:
                assert redis_cli.main([*where, *options, *command.split(" ")]) == 0
                assert capsys.readouterr().out.rstrip() == expected[number - 1], command
            redis_cli.main([*where, "FLUSHALL"])
            capsys.readouterr()
        assert redis_cli.main([*where, "--no-raw", "SET", "text"]) == 1
        assert capsys.readouterr().out == "(error) ERR wrong number of arguments for 'set' command\n"


@pytest.mark.process
def test_the_installed_redis_cli_prints_the_expected_text(tmp_path: Path) -> None:
    if shutil.which("redis-cli") is None:
        return
    with run_engine(tmp_path / "data", "none") as url:
        for number, options in enumerate(([], ["--no-raw"], ["--json"]), 1):
            for command, *expected in [*PRINTED, ("FLUSHALL", "OK", "OK", '"OK"')]:
                line = ["redis-cli", "-s", url.removeprefix("unix://"), *options, *command.split(" ")]
                done = subprocess.run(line, capture_output=True, text=True, timeout=10, check=True)
                assert done.stdout.rstrip() == expected[number - 1], command
