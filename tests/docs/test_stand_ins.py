"""The stand-in for redis-cli prints what redis-cli 7.0.15 printed, and what the one here prints, if there is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.engine import run_engine

STAND_IN = [sys.executable, str(Path(__file__).with_name("redis_cli.py"))]

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
    ("--scan --pattern z*", "zset", "zset", "zset"),
]


def printed_by(program: list[str], *args: str) -> str:
    done = subprocess.run([*program, *args], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.rstrip()


@pytest.mark.process
def test_the_stand_in_prints_as_redis_cli(tmp_path: Path) -> None:
    for program in (STAND_IN, ["redis-cli"]):
        if shutil.which(program[0]) is None:
            continue
        with run_engine(tmp_path / Path(program[0]).name, "none") as url:
            where = ["-s", url.removeprefix("unix://")]
            for number, options in enumerate(([], ["--no-raw"], ["--json"]), 1):
                for command, *expected in PRINTED:
                    assert printed_by(program, *where, *options, *command.split(" ")) == expected[number - 1], command
                printed_by(program, *where, "FLUSHALL")


@pytest.mark.process
def test_the_stand_in_says_that_a_command_failed(tmp_path: Path) -> None:
    with run_engine(tmp_path / "data", "none") as url:
        where = ["-s", url.removeprefix("unix://"), "--no-raw"]
        assert printed_by(STAND_IN, *where, "SET", "text") == "(error) ERR wrong number of arguments for 'set' command"
