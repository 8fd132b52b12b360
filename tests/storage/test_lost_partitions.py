"""A shop with partitions whose data are gone in one of them, in all, or beside the mark of the shop."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.domain.errors.storage import StorageUnavailable, UnsupportedRedis
from service.engine.launcher import run_engines
from service.partition_url import partition_url
from service.settings import Settings
from service.storage.opening import open_store
from service.storage.partitioned import AnyStore
from tests.support.engine_process import connect
from tests.support.shop import SHOP, add_mugs, new_order
from tests.support.waiting import eventually

COUNT = 2


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with run_engines(tmp_path / "data", COUNT, "none") as url:
        yield url


@asynccontextmanager
async def shop_at(url: str, *, creates_shop: bool = True, **fields: Any) -> AsyncIterator[AnyStore]:
    settings = replace(Settings(), shop=SHOP, redis_url=url, partitions=COUNT, durability="none", **fields)
    async with open_store(settings, creates_shop=creates_shop) as store:
        yield store


@contextmanager
def stopped(redis: Any) -> Iterator[None]:
    """Stop an engine for a while: it keeps its connections, and does not answer."""
    engine: int = redis.info("server")["process_id"]
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


async def check_each(store: AnyStore) -> None:
    for partition in store.partitions:
        await partition.check()


async def begin(url: str) -> None:
    async with shop_at(url) as store:
        mugs = await add_mugs(store)
        await store.orders.place(new_order((mugs, 1)))


def flush(url: str, number: int) -> None:
    with connect(partition_url(url, number)) as redis:
        redis.flushall()


async def test_the_log_says_of_which_partition_a_connection_is(url: str) -> None:
    with capture_logs() as logs:
        async with shop_at(url) as store:
            await check_each(store)
            with connect(partition_url(url, 1)) as redis:
                redis.client_kill_filter(_type="normal", skipme=True)
            await eventually(lambda: len(logs) == COUNT + 2, "the lines")
    assert {line["partition"] for line in logs[:COUNT]} == {0, 1}
    assert [(line["event"], line["partition"]) for line in logs[COUNT:]] == [("redis_lost", 1), ("redis_connected", 1)]


@pytest.mark.parametrize("creates_shop", [True, False])
async def test_a_partition_whose_data_are_lost_is_not_begun_again(url: str, creates_shop: bool) -> None:
    await begin(url)
    flush(url, 1)
    async with shop_at(url, creates_shop=creates_shop) as store:
        with pytest.raises(UnsupportedRedis, match=re.escape(f"`layout` is missing in {{{SHOP}:1}}:meta")):
            await store.partitions[1].check()
        await store.partitions[0].check()
    with connect(partition_url(url, 1)) as redis:
        assert redis.keys() == []


async def test_a_running_service_does_not_begin_a_partition_again_either(url: str) -> None:
    await begin(url)
    async with shop_at(url) as store:
        await check_each(store)
        flush(url, 1)
        with pytest.raises(UnsupportedRedis, match="are lost"):
            await store.partitions[1].check()
        await store.partitions[0].check()


async def test_a_running_service_writes_nothing_into_a_partition_whose_data_are_lost(url: str) -> None:
    await begin(url)
    async with shop_at(url) as store:
        await store.partitions[1].check()
        flush(url, 1)
        with pytest.raises(UnsupportedRedis, match="are lost"):
            await store.partitions[1].orders.place(new_order((1, 1)))
    with connect(partition_url(url, 1)) as redis:
        assert redis.keys() == []


async def test_a_shop_is_not_begun_again_if_its_mark_is_lost_with_the_first_partition(url: str) -> None:
    await begin(url)
    flush(url, 0)
    async with shop_at(url) as store:
        for partition in store.partitions:
            with pytest.raises(UnsupportedRedis, match=re.escape(f"`layout` is missing in {{{SHOP}}}:meta")):
                await partition.check()
    with connect(partition_url(url, 0)) as redis:
        assert redis.keys() == []


async def test_a_shop_whose_data_are_all_deleted_begins_anew(url: str) -> None:
    await begin(url)
    async with shop_at(url) as store:
        await check_each(store)
        for number in range(COUNT):
            flush(url, number)
        await check_each(store)
    flush(url, 1)
    async with shop_at(url) as store:
        with pytest.raises(UnsupportedRedis, match="are lost"):
            await store.partitions[1].check()


async def test_a_shop_that_was_begun_without_notes_gets_them_at_the_next_start(url: str) -> None:
    await begin(url)
    with connect(partition_url(url, 0)) as redis:
        notes = [f"begun:{number}" for number in range(COUNT)]
        assert redis.hdel(f"{{{SHOP}}}:meta", *notes) == COUNT
        async with shop_at(url) as store:
            await check_each(store)
        assert redis.hmget(f"{{{SHOP}}}:meta", notes) == [b"1"] * COUNT


async def test_workers_that_begin_a_shop_at_the_same_time_do_not_disturb_each_other(url: str) -> None:
    async with shop_at(url) as first, shop_at(url) as second, shop_at(url) as third:
        await asyncio.gather(*[check_each(store) for store in (first, second, third)])


async def test_a_partition_can_be_used_again_while_the_mark_of_the_shop_is_away(url: str) -> None:
    await begin(url)
    async with shop_at(url) as store:
        await check_each(store)
        with connect(partition_url(url, 0)) as mark, connect(partition_url(url, 1)) as redis, stopped(mark):
            redis.client_kill_filter(_type="normal", skipme=True)
            await store.partitions[1].check()


async def test_a_new_worker_uses_the_partitions_that_answer_while_the_mark_of_the_shop_is_away(url: str) -> None:
    await begin(url)
    with connect(partition_url(url, 0)) as mark:
        mark.hdel(f"{{{SHOP}}}:meta", "begun:1")
        with stopped(mark):
            async with shop_at(url, redis_timeout=1.0) as store:
                await store.partitions[1].orders.place(new_order((1, 1)))
                with pytest.raises(StorageUnavailable):
                    await store.partitions[0].check()
        assert mark.hget(f"{{{SHOP}}}:meta", "begun:1") is None
        async with shop_at(url) as store:
            await store.partitions[1].check()
        assert mark.hget(f"{{{SHOP}}}:meta", "begun:1") == b"1"


async def test_a_worker_that_began_without_the_mark_notes_its_partition_when_the_mark_is_there(url: str) -> None:
    await begin(url)
    with connect(partition_url(url, 0)) as mark:
        mark.hdel(f"{{{SHOP}}}:meta", "begun:1")
        async with shop_at(url, redis_timeout=1.0) as store:
            with stopped(mark):
                await store.partitions[1].check()

            async def is_noted() -> bool:
                with suppress(StorageUnavailable):
                    await store.partitions[1].check()
                return bool(mark.hexists(f"{{{SHOP}}}:meta", "begun:1"))

            await eventually(is_noted)


async def test_a_partition_without_data_is_not_begun_while_the_mark_of_the_shop_is_away(url: str) -> None:
    await begin(url)
    flush(url, 1)
    with connect(partition_url(url, 0)) as mark, connect(partition_url(url, 1)) as redis:
        with stopped(mark):
            async with shop_at(url, redis_timeout=1.0) as store:
                with pytest.raises(StorageUnavailable):
                    await store.partitions[1].check()
        assert redis.keys() == []
