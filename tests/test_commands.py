"""The `holdfast` command as a user runs it: what it prints, where, and how it ends."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pytest
import redis

from tests.support.processes import free_port, kill_processes_in
from tests.support.products import product_hash
from tests.support.shop import mug
from tests.support.waiting import PATIENCE

HOLDFAST = [sys.executable, "-W", "error", "-m", "service"]
CHECKOUT = Path(__file__).parent.parent


def environment(**variables: str) -> dict[str, str]:
    """Ours, without what would lead the command elsewhere."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return {**inherited, "PYTHONPATH": str(CHECKOUT), "HOLDFAST_DURABILITY": "none", **variables}


class Command:
    """Runs `holdfast` in a folder of its own, with its own variables."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.env = environment(**variables)

    def __call__(self, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HOLDFAST, *args],
            cwd=self.folder,
            env=self.env,
            capture_output="stderr" not in options,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*HOLDFAST, *args], cwd=self.folder, env=self.env, text=True, bufsize=1, **pipes)

    def write(self, name: str, *product_ids: int, more: str = "") -> None:
        rows = [json.dumps({"id": product_id, **mug()}) + "\n" for product_id in product_ids]
        (self.folder / name).write_text("".join(rows) + more)


class Outside(Command):
    """`holdfast` on the engine of the tests, in a shop that is empty at first."""

    def __init__(self, folder: Path, engine_url: str, **variables: str) -> None:
        super().__init__(folder, HOLDFAST_REDIS_URL=engine_url, HOLDFAST_SHOP="cli", **variables)
        self.redis = redis.Redis(unix_socket_path=unquote(engine_url.removeprefix("unix://")))
        self.redis.flushall()

    def add_products(self, *product_ids: int) -> None:
        """Ten mugs each, as their script writes them. Quicker than a command."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for product_id in product_ids:
                fields = product_hash(product_id)
                pipeline.hset(f"{{cli}}:product:{product_id}", mapping=fields)  # type: ignore[arg-type]
                pipeline.zadd("{cli}:products", {str(product_id): product_id})
            pipeline.execute()

    def add_event(self, number: int) -> str:
        """A stock move, as its script writes it. Gives its id."""
        fields = {"event": "stock_moved", "product": 1, "change": number, "reason": "counted", "stock": number}
        event_id: Any = self.redis.xadd("{cli}:events", fields)  # type: ignore[arg-type]
        return str(event_id.decode())


@pytest.fixture
def outside(tmp_path: Path, engine_url: str) -> Iterator[Outside]:
    command = Outside(tmp_path, engine_url)
    yield command
    command.redis.close()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Command]:
    """`holdfast` on an embedded engine in ./data."""
    yield Command(tmp_path)
    kill_processes_in(tmp_path)


def next_line(pipe: IO[str]) -> str:
    """The next line, or a failure when none comes. For pipes with one line at a time in them."""
    ready, _, _ = select.select([pipe], [], [], PATIENCE)
    assert ready, "no line came"
    return pipe.readline()


def assert_failed(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """It printed one line of what is wrong, and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("holdfast: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


# --- Audit ------------------------------------------------------------------------------------------------------------


def test_the_audit_of_a_shop_that_balances_says_so(outside: Outside) -> None:
    outside.add_products(1, 2)
    done = outside("audit")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 products, 0 orders, 0 of them pending.\nStock numbers and orders agree.\n"
    done = outside("audit", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "balanced": True,
        "products": 2,
        "orders": 0,
        "pending": 0,
        "events_followed": 0,
        "findings": [],
    }


def test_the_audit_names_what_is_off_and_exits_with_1(outside: Outside) -> None:
    outside.add_products(1, 2)
    outside.redis.hset("{cli}:product:2", "stock", "9")
    done = outside("audit")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "2 products, 0 orders, 0 of them pending.",
        "{cli}:product:2 has received 10, but stock 9 + held 0 + sold 0 is 9",
        "1 finding.",
    ]
    done = outside("audit", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert report["balanced"] is False
    [finding] = report["findings"]
    assert finding["key"] == "{cli}:product:2"


@pytest.mark.parametrize("key", ["products", "ids:orders"])
def test_the_audit_names_a_key_of_another_type(outside: Outside, key: str) -> None:
    outside.redis.hset(f"{{cli}}:{key}", "stock", "9")
    done = outside("audit")
    assert done.returncode == 1
    assert f"{{cli}}:{key} " in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_a_command_uses_the_engine_of_the_service_that_runs_on_the_directory(inside: Command) -> None:
    port = free_port()
    inside.env["HOLDFAST_PORT"] = str(port)
    with inside.start("serve", stderr=subprocess.STDOUT) as service:
        assert service.stdout is not None
        started = ""
        while str(port) not in started:
            started = next_line(service.stdout)
            assert started, "the service ended"
        inside.write("p.jsonl", 1)
        imported = inside("import", "p.jsonl")
        audited = inside("audit")
        events = inside("events")
        assert service.poll() is None
        service.terminate()
        service.communicate(timeout=PATIENCE)
    assert (imported.returncode, imported.stdout) == (0, "1 added, 0 already existed, 0 bad rows.\n")
    assert (audited.returncode, audited.stdout.splitlines()[0]) == (0, "1 products, 0 orders, 0 of them pending.")
    assert json.loads(events.stdout)["event"] == "product_added"
    assert inside("audit").stdout == audited.stdout  # with an engine of its own


# --- Import and export ------------------------------------------------------------------------------------------------


def test_an_import_that_is_repeated_adds_nothing(inside: Command) -> None:
    inside.write("p.jsonl", 1, 2)
    first, second = inside("import", "p.jsonl"), inside("import", "p.jsonl")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "2 added, 0 already existed, 0 bad rows.\n"
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == "0 added, 2 already existed, 0 bad rows.\n"
    exported = inside("export", "products")
    assert (exported.returncode, exported.stderr) == (0, "")
    assert [json.loads(line) for line in exported.stdout.splitlines()] == [{"id": number, **mug()} for number in (1, 2)]


def test_an_import_with_bad_rows_names_them_and_exits_with_1(outside: Outside) -> None:
    outside.write("p.jsonl", 1, more='{"id": 2}\nM\xfcg\n')
    done = outside("import", "p.jsonl")
    assert done.returncode == 1
    assert done.stdout == "1 added, 0 already existed, 2 bad rows.\n"
    first, second = done.stderr.splitlines()
    assert first.startswith("p.jsonl:2: #/name: Field is required; ")
    assert second.startswith("p.jsonl:3: This is not JSON")


def test_an_import_works_however_few_calls_may_be_under_way(outside: Outside) -> None:
    outside.write("p.jsonl", *range(1, 601))
    outside.env["HOLDFAST_MAX_IN_FLIGHT"] = "100"
    done = outside("import", "p.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("600 added")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("import", "absent.jsonl"), "absent.jsonl: "),
        (("import", "absent.txt"), "absent.txt: the name must end in .jsonl or .csv"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_in_one_line(
    outside: Outside, args: tuple[str, ...], message: str
) -> None:
    assert_failed(outside(*args), 1, message)


def test_orders_are_exported_newest_first(outside: Outside) -> None:
    outside.redis.set("{cli}:ids:orders", 2)
    for order_id in (1, 2):
        order = {"id": order_id, "status": "completed", "total_price": "5", "products": "1: 1 x 5", "created_at": 0}
        outside.redis.hset(f"{{cli}}:order:{order_id}", mapping=order)  # type: ignore[arg-type]
    done = outside("export", "orders")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {
            "id": order_id,
            "products": [{"product_id": 1, "quantity": 1, "price": 5}],
            "total_price": 5,
            "status": "completed",
            "created_at": "1970-01-01T00:00:00.000Z",
        }
        for order_id in (2, 1)
    ]


# --- Events -----------------------------------------------------------------------------------------------------------


def test_events_are_printed_from_the_first_or_after_a_given_one(outside: Outside) -> None:
    ids = [outside.add_event(number) for number in range(3)]
    done = outside("events")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events == [
        {"id": event_id, "event": "stock_moved", "product": 1, "change": number, "reason": "counted", "stock": number}
        for number, event_id in enumerate(ids)
    ]
    done = outside("events", "--after", ids[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ids[2:]


@pytest.mark.parametrize("after", ["yesterday", "9" * 30, "\N{ARABIC-INDIC DIGIT SEVEN}"])
def test_events_after_what_is_no_id_are_refused(outside: Outside, after: str) -> None:
    done = outside("events", f"--after={after}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "after" in done.stderr
    assert "Traceback" not in done.stderr


def test_events_are_followed_until_the_user_has_enough(outside: Outside) -> None:
    old = outside.add_event(1)
    with outside.start("events", "--follow") as following:
        assert following.stdout is not None
        assert json.loads(next_line(following.stdout))["id"] == old
        for number in range(2, 5):
            new = outside.add_event(number)
            assert json.loads(next_line(following.stdout))["id"] == new
        following.send_signal(signal.SIGINT)
        rest, errors = following.communicate(timeout=PATIENCE)
    assert (rest, errors) == ("", "")
    assert following.returncode == 130


def test_following_waits_for_longer_than_a_call_to_redis_may_take(outside: Outside) -> None:
    outside.env["HOLDFAST_REDIS_TIMEOUT"] = "0.2"
    first = outside.add_event(1)
    with outside.start("events", "--follow", "--after", first) as following:
        assert following.stdout is not None
        calls = "cmdstat_xread"
        give_up = time.monotonic() + PATIENCE
        outside.redis.config_resetstat()
        while int(dict(outside.redis.info("commandstats")).get(calls, {"calls": 0})["calls"]) < 4:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        new = outside.add_event(2)
        assert json.loads(next_line(following.stdout))["id"] == new
        following.send_signal(signal.SIGINT)
        assert following.communicate(timeout=PATIENCE) == ("", "")


def test_following_ends_quietly_when_nobody_reads_any_more(outside: Outside) -> None:
    outside.add_event(1)
    with outside.start("events", "--follow") as following:
        assert following.stdout is not None
        assert next_line(following.stdout)
        following.stdout.close()
        outside.add_event(2)
        assert following.wait(PATIENCE) == 0
        assert following.stderr is not None
        assert following.stderr.read() == ""


@pytest.mark.parametrize("number", [3, 3000], ids=["a few", "more than a pipe holds"])
@pytest.mark.parametrize("command", ["events", "export products"])
def test_output_that_nobody_reads_is_no_failure(outside: Outside, command: str, number: int) -> None:
    if command == "events":
        pipeline = outside.redis.pipeline(transaction=False)
        for _ in range(number):
            pipeline.xadd("{cli}:events", {"event": "stock_moved", "product": 1, "change": 1, "reason": "x" * 20})
        pipeline.execute()
    else:
        outside.add_products(*range(1, number + 1))
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*HOLDFAST, *command.split()],
            cwd=outside.folder,
            env=outside.env,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


# --- Called wrongly, or at the wrong time -----------------------------------------------------------------------------


def test_without_a_command_the_help_names_every_one(inside: Command) -> None:
    done = inside()
    assert (done.returncode, done.stderr) == (0, "")
    commands = ("serve", "health", "audit", "events", "import", "export")
    for word in (*commands, "--redis-url", "--data-dir", "HOLDFAST_REDIS_URL"):
        assert word in done.stdout
    assert list(inside.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("audit", ["--json", "stock numbers and orders agree"]),
        ("events", ["--after", "--follow", "JSON lines"]),
        ("import", ["FILE", "id, name, description, price, stock"]),
        ("export", ["WHAT", "all orders"]),
    ],
)
def test_the_help_of_a_command_says_how_to_call_it(inside: Command, command: str, words: list[str]) -> None:
    done = inside(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: holdfast {command}" in done.stdout
    for word in words:
        assert word in done.stdout


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("frobnicate",), "frobnicate"),
        (("audit", "--yaml"), "--yaml"),
        (("export", "customers"), "'products', 'orders'"),
        (("import",), "file"),
    ],
)
def test_a_wrong_call_is_told_and_exits_with_2(inside: Command, args: tuple[str, ...], word: str) -> None:
    done = inside(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert list(inside.folder.iterdir()) == []


@pytest.mark.parametrize(("args", "code"), [(("audit",), 3), (("events", "--follow"), 1), (("import", "p.jsonl"), 1)])
def test_a_redis_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    command = Command(tmp_path, HOLDFAST_REDIS_URL=url, HOLDFAST_REDIS_TIMEOUT="0.2")
    command.write("p.jsonl", 1)
    assert_failed(command(*args), code, "127.0.0.1")


@pytest.mark.parametrize(("args", "code"), [(("audit",), 3), (("events",), 1), (("export", "orders"), 1)])
def test_where_there_are_no_data_none_are_made_up(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    command = Command(tmp_path)
    assert_failed(command(*args), code, "there is no data in data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_told_in_one_line(outside: Outside) -> None:
    outside.write("p.jsonl", 1)
    outside("import", "p.jsonl")
    with Path("/dev/full").open("w") as full:
        done = outside("export", "products", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_audit_that_cannot_tell_says_so_in_json_as_well(tmp_path: Path) -> None:
    command = Command(tmp_path, HOLDFAST_REDIS_URL=f"redis://127.0.0.1:{free_port()}", HOLDFAST_REDIS_TIMEOUT="0.2")
    done = command("audit", "--json")
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert report["balanced"] is None
    assert "127.0.0.1" in report["reason"]


def test_a_redis_that_promises_too_little_is_told_in_one_line(outside: Outside) -> None:
    outside.env["HOLDFAST_DURABILITY"] = "always"
    assert_failed(outside("audit"), 3, "HOLDFAST_DURABILITY is always")


def test_data_of_a_newer_program_is_told_in_one_line(outside: Outside) -> None:
    outside.redis.hset("{cli}:meta", "layout", 2)
    assert_failed(outside("export", "products"), 1, "layout 2")


# --- Progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "unit", "begin"),
    [
        (("audit",), "keys", "2 products, 0 orders"),
        (("import", "p.jsonl"), "B", "0 added, 2 already existed"),
        (("export", "products"), "products", '{"id":1,'),
    ],
)
def test_a_progress_bar_appears_on_a_terminal_and_the_output_stays_clean(
    outside: Outside, args: tuple[str, ...], unit: str, begin: str
) -> None:
    outside.add_products(1, 2)
    outside.write("p.jsonl", 1, 2)
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    try:
        done = outside(*args, stdout=subprocess.PIPE, stderr=terminal)
        shown = ""
        while select.select([controller], [], [], 0)[0]:
            shown += os.read(controller, 65536).decode()
    finally:
        os.close(terminal)
        os.close(controller)
    assert "\r" in shown
    assert "%|" in shown
    assert unit in shown
    assert done.returncode == 0
    assert done.stdout.startswith(begin)
    assert "\r" not in done.stdout
