"""`holdfast key`: makes keys, shows each once, and lists what is known of them."""

import re
import stat
from pathlib import Path

import pytest

from service.domain.api_key import digest_of, parse_keys
from tests.support.command_line import HoldfastCommand


@pytest.fixture
def holdfast(tmp_path: Path) -> HoldfastCommand:
    """`holdfast` without Redis: it needs none for keys."""
    return HoldfastCommand(tmp_path)


def test_a_new_key_is_shown_once_and_only_its_hash_is_kept(holdfast: HoldfastCommand, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first = holdfast("key", "new", "shop", "--scopes", "orders:write,orders:read", "--file", file)
    second = holdfast("key", "new", "board", "--scopes", "ops:read", "--rate", "5/s", "--days", "30", "--file", file)
    assert (first.returncode, second.returncode) == (0, 0)
    secrets = [first.stdout.strip(), second.stdout.strip()]
    assert all(re.fullmatch("hf_[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    assert secrets[0] != secrets[1]
    keys = parse_keys(file.read_text())
    assert [key.digest for key in keys] == [digest_of(secret.encode()) for secret in secrets]
    assert keys[0].scopes == {"orders:read", "orders:write"}
    assert (keys[0].expires_at, keys[0].rate) == (None, None)
    assert keys[1].expires_at is not None
    assert keys[1].rate == (5, 1)
    assert not any(secret in file.read_text() + first.stderr + second.stderr for secret in secrets)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = holdfast("key", "list", "--file", file).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["shop", "board"]
    assert "scopes=orders:read,orders:write" in listed[0]
    assert "rate=5/s" in listed[1]


def test_without_a_file_the_line_of_a_key_is_printed_beside_it(holdfast: HoldfastCommand) -> None:
    done = holdfast("key", "new", "shop", "--scopes", "all")
    [key] = parse_keys(done.stderr)
    assert key.digest == digest_of(done.stdout.strip().encode())


def test_the_file_of_the_service_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# who may call")  # without a line feed at its end
    holdfast = HoldfastCommand(tmp_path, HOLDFAST_API_KEYS_FILE=str(file))
    assert holdfast("key", "new", "shop", "--scopes", "all").returncode == 0
    assert file.read_text().startswith("# who may call\nshop sha256:")
    assert holdfast("key", "list").stdout.startswith("shop  sha256:")


def test_a_key_that_has_ended_is_marked(holdfast: HoldfastCommand, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    holdfast("key", "new", "old", "--scopes", "all", "--expires", "2020-01-01T00:00:00Z", "--file", file)
    assert "(ended 2020-01-01T00:00:00.000Z)" in holdfast("key", "list", "--file", file).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["a b", "--scopes", "all"], 2, "a name has 1 to 32 letters"),
        (["a", "--scopes", "orders"], 2, "scopes are catalog:read"),
        (["a"], 2, "Missing option '--scopes'"),
        (["a", "--scopes", "all", "--rate", "fast"], 2, "a rate is a number of requests"),
        (["a", "--scopes", "all", "--expires", "soon"], 2, "expires is a date and time"),
        (["a", "--scopes", "all", "--days", "1", "--expires", "2030-01-01T00:00:00Z"], 1, "give either"),
        (["a", "--scopes", "all", "--file", "wrong"], 1, "wrong: line 1: a key is NAME"),
        (["a", "--scopes", "all", "--file", "/dev/full"], 1, "/dev/full: it is not a regular file"),
        (["a", "--scopes", "all", "--file", "missing/keys"], 1, "missing/keys: No such file or directory"),
    ],
)
def test_a_wrong_command_makes_no_key(
    holdfast: HoldfastCommand, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    (tmp_path / "wrong").write_text("nonsense\n")
    done = holdfast("key", "new", *arguments)
    assert done.returncode == code
    assert reason in done.stderr
    assert done.stdout == ""


def test_a_list_needs_a_file(holdfast: HoldfastCommand) -> None:
    done = holdfast("key", "list")
    assert done.returncode == 1
    assert "HOLDFAST_API_KEYS_FILE" in done.stderr
