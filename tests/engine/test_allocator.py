"""HOLDFAST_ENGINE_ALLOCATOR: the embedded engine uses the malloc of a library, or says why it cannot."""

import sys
from pathlib import Path

import pytest

from service.engine.data_dir import EngineError
from service.engine.launcher import run_engine, run_engines
from service.partition_url import partition_url
from tests.support.engine_process import connect
from tests.support.processes import processes_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")


def libraries_of(process: int | str) -> set[Path]:
    """Return the files that are mapped into the memory of a process."""
    rows = [line.split(maxsplit=5) for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
    return {Path(row[5]) for row in rows if len(row) == 6 and row[5].startswith("/")}


@pytest.fixture
def library() -> Path:
    """A library of the system that the engine does not load by itself."""
    [libc] = {path for path in libraries_of("self") if path.name.startswith(("libc.so", "libc-", "ld-musl"))}
    found = [path for path in sorted(libc.parent.glob("libBrokenLocale*.so*")) if path.is_file()]
    if not found:
        pytest.skip("this system has no such library")
    return found[0]


def test_an_engine_loads_the_library_before_its_own(data_dir: Path, library: Path) -> None:
    with run_engine(data_dir, allocator=library) as url, connect(url) as redis:
        redis.set("key", "value")
        [engine] = processes_in(data_dir)
        assert library.resolve() in libraries_of(engine)


def test_without_the_setting_the_engine_does_not_load_it(data_dir: Path, library: Path) -> None:
    with run_engine(data_dir):
        [engine] = processes_in(data_dir)
        assert library.resolve() not in libraries_of(engine)


def test_the_engines_of_all_partitions_load_it(data_dir: Path, library: Path) -> None:
    with run_engines(data_dir, 2, "none", allocator=library) as url:
        for number in range(2):
            with connect(partition_url(url, number)) as redis:
                assert library.resolve() in libraries_of(redis.info("server")["process_id"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.so", None, "there is no such file"),
        ("text.so", b"not a library", "cannot be preloaded"),
        ("has space.so", b"", "must not have a space or a colon"),
    ],
)
def test_a_file_that_is_no_library_is_refused_and_no_engine_is_left(
    data_dir: Path, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError) as caught, run_engine(data_dir, allocator=path):
        pass
    message = str(caught.value)
    assert message.startswith(f"HOLDFAST_ENGINE_ALLOCATOR: the engine cannot use {path}: ")
    assert reason in message
    assert "\n" not in message
    assert not processes_in(data_dir)
