"""The output of all commands: a closed pipe, a full disk, and the progress bar."""

import os
import pty
import re
import select
import subprocess
import termios
from pathlib import Path

import pytest

from tests.support.command_line import HOLDFAST, HoldfastCommand, SharedEngineCommand
from tests.support.processes import free_port


@pytest.mark.parametrize("number", [3, 3000], ids=["few lines", "more lines than a pipe holds"])
@pytest.mark.parametrize("command", ["events", "export products"])
def test_a_closed_output_is_not_an_error(holdfast: SharedEngineCommand, command: str, number: int) -> None:
    if command == "events":
        pipeline = holdfast.redis.pipeline(transaction=False)
        for _ in range(number):
            pipeline.xadd("{cli}:events", {"event": "stock_moved", "product": 1, "change": 1, "reason": "x" * 20})
        pipeline.execute()
    else:
        holdfast.add_products(*range(1, number + 1))
    read, write = os.pipe()
    os.close(read)
    try:
        result = subprocess.run(
            [*HOLDFAST, *command.split()],
            cwd=holdfast.folder,
            env=holdfast.env,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_reported(holdfast: SharedEngineCommand) -> None:
    holdfast.write_products("p.jsonl", 1)
    holdfast("import", "p.jsonl")
    with Path("/dev/full").open("w") as full:
        result = holdfast("export", "products", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert "No space left" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_a_help_that_cannot_be_printed_is_reported_in_one_line(holdfast: SharedEngineCommand, argument: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = holdfast(argument, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "holdfast: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    ("args", "unit", "first_line"),
    [
        (("audit",), "keys", "2 products, 0 orders"),
        (("import", "p.jsonl"), "B", "0 added, 0 changed, 2 already existed"),
        (("export", "products"), "products", '{"id":1,'),
    ],
)
def test_a_progress_bar_appears_on_stderr_only(
    holdfast: SharedEngineCommand, args: tuple[str, ...], unit: str, first_line: str
) -> None:
    holdfast.add_products(1, 2)
    holdfast.write_products("p.jsonl", 1, 2)
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    try:
        result = holdfast.on_terminal(*args, stderr=terminal)
        shown = ""
        while select.select([controller], [], [], 0)[0]:
            shown += os.read(controller, 65536).decode()
    finally:
        os.close(terminal)
        os.close(controller)
    assert "\r" in shown
    assert "%|" in shown
    assert unit in shown
    assert result.returncode == 0
    assert result.stdout.startswith(first_line)
    assert "\r" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    ["export products", "export products --format csv", "events", "sales --by product --format csv", "audit"],
)
def test_a_terminal_gets_no_control_characters_of_names(holdfast: SharedEngineCommand, arguments: str) -> None:
    """A terminal would obey them: they change its title or its colours, or hide what is on it."""
    holdfast.write_products("p.jsonl", 1)
    holdfast("import", "p.jsonl")
    name = "Mug\x1b[31m\x9b2J\x07\rCup"
    holdfast.redis.hset("{cli}:product:1", "name", name)
    order = {"id": 1, "status": "completed", "total_price": "5", "products": "1: 1 x 5", "created_at": 0}
    holdfast.redis.hset("{cli}:order:1", mapping=order)  # type: ignore[arg-type]
    holdfast.redis.set(f"{{cli}}:customer:{name}", 1)
    holdfast.redis.xadd("{cli}:events", {"event": "stock_moved", "product": 1, "change": 1, "reason": name})
    controller, terminal = pty.openpty()
    try:
        holdfast.on_terminal(*arguments.split(), stdout=terminal)
        shown = ""
        while select.select([controller], [], [], 0)[0]:
            shown += os.read(controller, 65536).decode()
    finally:
        os.close(terminal)
        os.close(controller)
    assert "Mug" in shown
    assert "Cup" in shown
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r[^\r\n]", shown), shown


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
def test_a_file_gets_names_as_they_are(holdfast: SharedEngineCommand, file_format: str) -> None:
    holdfast.add_products(1)
    holdfast.redis.hset("{cli}:product:1", "name", "Mug\x9b2J\x07")
    shown = holdfast("export", "products", "--format", file_format).stdout
    assert "Mug\x9b2J" in shown
    assert ("\x07" in shown) == (file_format == "csv")  # JSON has \u0007


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("audit", 3),
        ("audit --json", 3),
        ("export orders", 1),
        ("events", 1),
        ("import absent.csv", 1),
        ("health", 1),
        ("--port x health", 2),
        ("--port x serve", 2),
        ("nonsense", 2),
        ("serve --port 9000", 2),
        ("serve", 1),
    ],
)
def test_a_command_that_fails_has_its_exit_code_though_nobody_reads_the_reason(
    tmp_path: Path, arguments: str, code: int
) -> None:
    (tmp_path / "data").write_text("not a directory")
    read, write = os.pipe()
    os.close(read)
    command = HoldfastCommand(tmp_path, HOLDFAST_PORT=str(free_port()))
    result = command(*arguments.split(), stdout=write, stderr=write)
    os.close(write)
    assert result.returncode == code
