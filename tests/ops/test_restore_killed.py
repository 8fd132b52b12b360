"""A restore that is killed at any step: the data are the old or the new ones, and a repetition works."""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from service.engine import data_files
from service.engine.launcher import run_engine
from service.ops.backup import back_up, new_folder
from service.ops.restore import restore
from service.settings import Settings
from tests.support.engine_process import connect
from tests.support.processes import kill_processes_in

pytestmark = pytest.mark.process


class Killed(BaseException):
    """The process ends here. It is no Exception, so nothing handles it."""


class Steps:
    """Counts the steps that change the disk for good, and ends the process before one of them."""

    def __init__(self) -> None:
        self.left = -1

    def count(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    rename, sync, rmtree = Path.rename, data_files.sync, shutil.rmtree

    def counted(step: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            steps.count()
            return step(*args, **options)

        return run

    monkeypatch.setattr(Path, "rename", counted(rename))
    monkeypatch.setattr(data_files, "sync", counted(sync))
    monkeypatch.setattr(shutil, "rmtree", counted(rmtree))
    return steps


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    kill_processes_in(tmp_path)


class NoBar(nullcontext[Any]):
    """A progress bar that shows nothing."""

    def __init__(self, *_: object) -> None:
        super().__init__(self)

    def update(self, count: int) -> None:
        pass


def name_in(data_dir: Path, new_name: str = "") -> str:
    """Return the name of the product in a data directory, and then give it a new name, if there is one."""
    with run_engine(data_dir, "none") as url, connect(url) as redis:
        name = str(redis.hget("{shop}:product:1", "name").decode())
        if new_name:
            redis.hset("{shop}:product:1", "name", new_name)
        return name


async def test_a_restore_that_is_killed_before_any_step_leaves_the_old_or_the_new_data(
    folder: Path, steps: Steps
) -> None:
    data = folder / "data"
    settings = Settings(data_dir=data, durability="none")
    with run_engine(data, "none") as url, connect(url) as redis:
        redis.hset("{shop}:meta", "layout", 2)
        redis.hset("{shop}:product:1", "name", "new")
        with new_folder(folder / "backup") as partial:
            await back_up(settings, url, partial, NoBar)
    seen: list[str] = []
    for number in range(100):
        if seen[-1:] != ["old"]:
            name_in(data, "old")
        steps.left = number
        try:
            await restore(settings, folder / "backup", NoBar, move_aside=True)
        except Killed:
            steps.left = -1
            seen.append(name_in(data))
        else:
            break
    steps.left = -1
    assert name_in(data) == "new"
    assert sorted(seen, reverse=True) == seen  # first the old data are left, and from a certain step on the new ones
    assert set(seen) == {"old", "new"}
