"""`holdfast backup` and `holdfast restore`: what they keep, what they refuse, and what they leave when stopped."""

import hashlib
import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.engine.data_files import commit_restore, finish_restore, prepare_restore
from service.engine.launcher import run_engine
from service.engine.snapshot import make_data
from tests.support.command_line import HoldfastCommand, assert_failed
from tests.support.engine_process import connect

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> HoldfastCommand:
    """`holdfast` in a folder with the data of two products and a backup of them. Tests change copies of it."""
    holdfast = HoldfastCommand(tmp_path_factory.mktemp("original"))
    holdfast.write_products("two.jsonl", 1, 2)
    assert holdfast("import", "two.jsonl").returncode == 0
    assert holdfast("backup", "backup").returncode == 0
    return holdfast


@pytest.fixture(scope="module")
def wanted(original: HoldfastCommand) -> str:
    """The two products, as they are exported."""
    return products(original)


@pytest.fixture
def shop(original: HoldfastCommand, embedded_holdfast: HoldfastCommand) -> HoldfastCommand:
    """`holdfast` on an embedded engine with two products."""
    shutil.copytree(
        original.folder, embedded_holdfast.folder, ignore=shutil.ignore_patterns("backup"), dirs_exist_ok=True
    )
    return embedded_holdfast


@pytest.fixture
def backup(original: HoldfastCommand, shop: HoldfastCommand) -> Path:
    """A backup of `shop`."""
    return Path(shutil.copytree(original.folder / "backup", shop.folder / "backup"))


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a directory."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def products(holdfast: HoldfastCommand) -> str:
    return holdfast("export", "products").stdout


def test_a_backup_is_a_snapshot_and_a_manifest_that_describes_it(shop: HoldfastCommand) -> None:
    done = shop("backup", "backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"shop: 2 products, 0 orders, 0 of them pending\.\n"
        r"Backup in backup: the data as of 2\d{3}-\d\d-\d\dT[\d:.]+Z\.\n"
        r"Verified: stock numbers and orders agree\.\n",
        done.stdout,
    )
    folder = shop.folder / "backup"
    manifest = json.loads((folder / "backup.json").read_text())
    assert contents(folder).keys() == {"backup.json", "data.rdb"}
    assert manifest["files"]["data.rdb"]["sha256"] == contents(folder)["data.rdb"]
    assert manifest["shops"] == {
        "shop": {"layout": 2, "products": 2, "orders": 0, "pending": 0, "archived": 0, "findings": 0}
    }
    assert manifest["engine"].startswith("Valkey ")
    assert not (shop.folder / "backup.partial").exists()
    assert not (shop.folder / "data" / "backup.rdb").exists()


def test_a_restored_shop_has_what_the_backup_had_and_the_backup_stays_as_it_was(
    shop: HoldfastCommand, backup: Path, wanted: str
) -> None:
    before = contents(backup)
    shop.write_products("third.jsonl", 3)
    shop("import", "third.jsonl")
    assert products(shop) != wanted
    done = shop("restore", "backup", "--move-aside")
    assert (done.returncode, done.stderr) == (0, "")
    assert "The data from before are in " in done.stdout
    assert "shop: the next order id is 9000000001." in done.stdout
    assert products(shop) == wanted
    assert shop("audit").returncode == 0
    assert '"event":"shop_restored"' in shop("events").stdout.splitlines()[-1]
    shop.env["HOLDFAST_DATA_DIR"] = "data/before-restore-1"
    assert products(shop).count("\n") == 3  # nothing was deleted
    assert contents(backup) == before


@pytest.mark.usefixtures("backup")
def test_a_backup_is_restored_into_a_new_directory(shop: HoldfastCommand, wanted: str) -> None:
    shop.env["HOLDFAST_DATA_DIR"] = "new/data"
    assert shop("restore", "backup").returncode == 0
    assert products(shop) == wanted
    assert shop("restore", "backup").returncode == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("backup", "backup"), "exists already: choose a new directory"),
        (("restore", "backup"), "has data already: with --move-aside"),
        (("restore", "elsewhere"), "elsewhere is no backup of Holdfast: backup.json: No such file"),
        (("--redis-url", "redis://localhost:1", "backup", "new"), "is for the embedded engine"),
        (("--redis-url", "redis://localhost:1", "restore", "backup"), "is for the embedded engine"),
        (("--shop", "other", "backup", "new"), "there is no shop 'other' in"),
        (("--shop", "other", "restore", "backup", "--move-aside"), "has no shop 'other' (HOLDFAST_SHOP); the shops in"),
        (("--data-dir", "nothing", "backup", "new"), "does not exist"),
        (("backup", "missing/new"), "there is no directory {}/missing: create it, or choose another one"),
        (("backup", "two.jsonl/new"), "two.jsonl/new.partial: Not a directory"),
        (("--data-dir", "two.jsonl/new", "restore", "backup"), "cannot make the data directory two.jsonl/new"),
    ],
)
def test_a_reason_to_refuse_is_one_line_and_nothing_changes(
    shop: HoldfastCommand, backup: Path, wanted: str, args: tuple[str, ...], message: str
) -> None:
    before = contents(backup)
    assert_failed(shop(*args), 1, message.format(shop.folder))
    assert contents(backup) == before
    assert products(shop) == wanted
    assert not (shop.folder / "new").exists()
    assert not (shop.folder / "new.partial").exists()
    assert not (shop.folder / "missing").exists()


def flip_one_byte(folder: Path) -> None:
    content = bytearray((folder / "data.rdb").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "data.rdb").write_bytes(content)


def cut(folder: Path) -> None:
    os.truncate(folder / "data.rdb", 50)


def change_manifest(**changes: object) -> Change:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "backup.json").read_text())
        (folder / "backup.json").write_text(json.dumps({**manifest, **changes}))

    return change


COUNTS = {"products": 2, "orders": 0, "pending": 0, "archived": 0, "findings": 0}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_one_byte, "is damaged: its SHA-256"),
        (cut, "is damaged: it has 50 bytes"),
        (lambda folder: (folder / "data.rdb").unlink(), "cannot read"),
        (lambda folder: (folder / "backup.json").write_bytes(b"\xff"), "backup.json is damaged"),
        (lambda folder: (folder / "backup.json").write_text("[]"), "backup.json is damaged"),
        (change_manifest(shops=5), "backup.json is damaged"),
        (change_manifest(format=2), "was made by a newer Holdfast"),
        (change_manifest(shops={"shop": {"layout": 3, **COUNTS}}), "has data of layout 3"),
    ],
)
def test_a_damaged_or_newer_backup_is_refused_and_nothing_changes(
    shop: HoldfastCommand, backup: Path, wanted: str, damage: Change, message: str
) -> None:
    damage(backup)
    assert_failed(shop("restore", "backup", "--move-aside"), 1, message)
    assert products(shop) == wanted
    assert not list((shop.folder / "data").glob("before-restore*"))


def test_a_running_engine_is_copied_but_never_replaced(shop: HoldfastCommand, backup: Path) -> None:
    with run_engine(shop.folder / "data", "none") as url, connect(url) as redis:
        redis.hset("{shop}:product:1", "name", "Changed while it runs")
        assert_failed(shop("restore", "backup", "--move-aside"), 1, "data is in use: stop the service first")
        assert shop("backup", "second").returncode == 0
        assert redis.hget("{shop}:product:1", "name") == b"Changed while it runs"
    shop.env["HOLDFAST_DATA_DIR"] = "new"
    assert shop("restore", "second").returncode == 0
    assert "Changed while it runs" in products(shop)


def test_damaged_data_are_kept_and_both_commands_say_so(shop: HoldfastCommand) -> None:
    with run_engine(shop.folder / "data", "none") as url, connect(url) as redis:
        redis.hset("{shop}:product:1", "sold", 5)
    done = shop("backup", "backup")
    assert (done.returncode, done.stderr) == (3, "holdfast: 2 findings of the audit: `holdfast audit` names them\n")
    shop.env["HOLDFAST_DATA_DIR"] = "new"
    done = shop("restore", "backup")
    assert done.returncode == 3
    assert "{shop}:product:1 has sold 5" in done.stdout
    assert products(shop).count("\n") == 2


def test_what_a_killed_backup_has_left_is_replaced(shop: HoldfastCommand) -> None:
    (shop.folder / "backup.partial" / "check").mkdir(parents=True)
    (shop.folder / "backup.partial" / "data.rdb").write_text("half")
    assert shop("backup", "backup").returncode == 0
    assert contents(shop.folder / "backup").keys() == {"backup.json", "data.rdb"}


def test_files_of_others_in_the_partial_directory_are_kept(shop: HoldfastCommand) -> None:
    (shop.folder / "backup.partial").mkdir()
    (shop.folder / "backup.partial" / "thesis.txt").write_text("mine")
    assert_failed(shop("backup", "backup"), 1, "has files that are not of a backup, such as thesis.txt")
    assert (shop.folder / "backup.partial" / "thesis.txt").read_text() == "mine"


def test_all_shops_of_the_engine_are_marked(shop: HoldfastCommand) -> None:
    shop("--shop", "second", "import", "two.jsonl")
    assert shop("backup", "backup").stdout.startswith("second: 2 products")
    shop.env["HOLDFAST_DATA_DIR"] = "new"
    assert shop("restore", "backup", "--after", "20000000000").returncode == 0
    for name in ("shop", "second"):
        assert '"next_order":29000000001}' in shop("--shop", name, "events").stdout


@pytest.mark.parametrize("killed", ["before the decision", "after it", "when the old data are aside", "at the end"])
def test_a_restore_that_is_killed_has_done_all_or_nothing(
    shop: HoldfastCommand, backup: Path, wanted: str, killed: str
) -> None:
    with run_engine(shop.folder / "data", "none") as url, connect(url) as redis:
        redis.hset("{shop}:product:1", "name", "Old")
    new, old = wanted, products(shop)
    data = shop.folder / "data"
    make_data(backup / "data.rdb", prepare_restore(data))
    if killed != "before the decision":
        commit_restore(data)
    if killed == "when the old data are aside":
        (data / "before-restore-1").mkdir()
        (data / "appendonlydir").rename(data / "before-restore-1" / "appendonlydir")
    if killed == "at the end":
        finish_restore(data)
        (data / "restored").mkdir()
    assert products(shop) == (old if killed == "before the decision" else new)
    assert shop("restore", "backup", "--move-aside").returncode == 0
    assert products(shop) == new
    assert not (data / "restored").exists()
    assert not (data / "restoring").exists()
    shop.env["HOLDFAST_DATA_DIR"] = "data/before-restore-1"
    assert products(shop) == old


@pytest.mark.usefixtures("backup")
def test_a_disk_without_room_is_reported_and_nothing_changes(shop: HoldfastCommand, wanted: str) -> None:
    for command in (("backup", "new"), ("restore", "backup", "--move-aside")):
        done = shop(*command, preexec_fn=_no_room)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
    assert products(shop) == wanted
    assert not (shop.folder / "new").exists()


def _no_room() -> None:
    """Forbid this process and its children to write files of more than 100 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
