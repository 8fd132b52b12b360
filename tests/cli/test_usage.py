"""The help texts, and the report of a wrong call."""

from pathlib import Path

import pytest

from tests.support.command_line import HoldfastCommand


def test_holdfast_without_a_command_prints_all_commands(embedded_holdfast: HoldfastCommand) -> None:
    result = embedded_holdfast()
    assert (result.returncode, result.stderr) == (0, "")
    commands = ("serve", "health", "audit", "events", "import", "export")
    for word in (*commands, "--redis-url", "--data-dir", "HOLDFAST_REDIS_URL"):
        assert word in result.stdout
    assert list(embedded_holdfast.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("audit", ["--json", "stock numbers and orders agree"]),
        ("events", ["--after", "--follow", "JSON lines"]),
        ("import", ["FILE", "id, name, description, price, stock"]),
        ("export", ["WHAT", "completed orders"]),
        ("load", ["--allow-remote", "Rehearse a sale"]),
    ],
)
def test_the_help_of_a_command_shows_its_usage(
    embedded_holdfast: HoldfastCommand, command: str, words: list[str]
) -> None:
    result = embedded_holdfast(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Usage: holdfast {command}" in result.stdout
    for word in words:
        assert word in result.stdout


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("frobnicate",), "frobnicate"),
        (("audit", "--yaml"), "--yaml"),
        (("load", "--rate", "nan"), "--rate"),
        (("export", "customers"), "'products', 'orders'"),
        (("import",), "file"),
    ],
)
def test_a_wrong_command_line_is_reported_and_exits_with_2(
    embedded_holdfast: HoldfastCommand, args: tuple[str, ...], word: str
) -> None:
    result = embedded_holdfast(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert word in result.stderr.lower()
    assert "Traceback" not in result.stderr
    assert list(embedded_holdfast.folder.iterdir()) == []


def test_an_option_after_its_command_is_refused_and_the_right_place_is_shown(
    embedded_holdfast: HoldfastCommand,
) -> None:
    result = embedded_holdfast("serve", "--port", "9000")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("Write --port before the command: holdfast --port ...\n")


@pytest.mark.parametrize(
    ("url", "is_shown"),
    [
        ("redis://:secret@127.0.0.1:1", True),
        ("rediss://user:secret@127.0.0.1:1/0", True),
        ("unix://user@/nowhere.sock?password=secret", True),
        ("redis://127.0.0.1:1", False),
        ("redis://user@127.0.0.1:1", False),
    ],
)
def test_a_password_on_the_command_line_is_warned_about_and_not_repeated(
    tmp_path: Path, url: str, is_shown: bool
) -> None:
    done = HoldfastCommand(tmp_path, HOLDFAST_REDIS_TIMEOUT="0.01")("--redis-url", url, "audit")
    assert ("shows its password in the list of processes" in done.stderr) == is_shown
    assert "secret" not in done.stderr
