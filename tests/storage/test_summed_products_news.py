"""Pages of a shop with partitions: no page is older than its request, also if replies and news are late or lost."""

import asyncio
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from service.domain.errors.storage import Overloaded, StorageUnavailable
from service.storage.partitioned import PartitionedStore
from service.storage.sender import ErrorReply
from service.storage.summed_products import SummedProducts
from service.storage.tracked_products import TrackedProducts
from tests.support.engines import TestConnection
from tests.support.network import Network
from tests.support.pages import COUNT, hashes_read, mug_in, needs_tracking, page, stocks
from tests.support.partitions import open_partitioned_store
from tests.support.shop import new_mug
from tests.support.waiting import eventually


async def commands_arrive(networks: list[Network]) -> None:
    """Wait until a command has arrived in each of these networks that was not there before."""
    before = [len(network.chunks) for network in networks]
    await eventually(lambda: all(len(network.chunks) > count for network, count in zip(networks, before, strict=True)))


async def test_a_page_waits_for_the_news_of_each_partition(
    worker: PartitionedStore, networks: list[Network], engine: TestConnection
) -> None:
    await needs_tracking(engine)
    for number, network in enumerate(networks):
        network.replies_pass.clear()
        await engine.send("HINCRBY", mug_in(number), "stock", 1)
        reading = asyncio.create_task(stocks(worker))
        await commands_arrive(networks)
        assert not reading.done()
        network.replies_pass.set()
        assert await reading == [11 + number, 10, 10]


async def test_a_page_shares_no_question_that_was_sent_before_its_request(
    worker: PartitionedStore, networks: list[Network], engine: TestConnection
) -> None:
    """The first page has asked, and waits for the reply. The second one may know of a change that was made then."""
    await needs_tracking(engine)

    async def has_answered_all() -> bool:
        return f"cmdstat_ping:calls={COUNT}" in str(await engine.send("INFO", "commandstats"))

    networks[2].delay = 0.1  # between the reply to the first page and the news
    for stock in range(11, 11 + COUNT):  # the ids of the second page are read in each partition in turn
        for network in networks:
            network.replies_pass.clear()
        await engine.send("CONFIG", "RESETSTAT")
        first = asyncio.create_task(stocks(worker))
        await eventually(has_answered_all)
        await engine.send("HINCRBY", mug_in(2), "stock", 1)
        second = asyncio.create_task(stocks(worker))
        await asyncio.sleep(0)
        for network in networks:
            network.replies_pass.set()
        await first
        assert await second == [stock, 10, 10]


async def test_a_part_that_changes_while_its_reply_is_on_the_way_is_read_again(
    engine: TestConnection, engine_url: str
) -> None:
    async with open_partitioned_store(*[engine_url] * COUNT) as store:
        await store.products.add(new_mug(stock=0))
        await stocks(store)
        with Redis.from_url(engine_url) as blocking:  # while it waits, this event loop reads no reply
            for number in range(10 * COUNT):
                blocking.hset(mug_in(number % COUNT), "stock", number)
                others = sum(int(blocking.hget(mug_in(other), "stock") or 0) for other in range(COUNT)) - number
                blocking.config_resetstat()
                reading = asyncio.create_task(stocks(store))
                while not reading.done() and "cmdstat_hmget" not in blocking.info("commandstats"):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                blocking.hset(mug_in(number % COUNT), "stock", 100 + number)  # the news comes together with the reply
                assert await reading in ([others + number], [others + 100 + number])
                assert await stocks(store) == [others + 100 + number]


@pytest.mark.parametrize("lost", range(COUNT))
async def test_nothing_is_known_after_the_connection_to_a_partition_was_lost(
    worker: PartitionedStore, engine: TestConnection, networks: list[Network], lost: int
) -> None:
    for stock in (11, 12):
        await networks[lost].close()
        await engine.send("HINCRBY", mug_in(lost), "stock", 1)
        await networks[lost].open()
        assert await stocks(worker) == [stock, 10, 10]
    await engine.send("HINCRBY", mug_in(lost), "stock", 1)
    assert await stocks(worker) == await stocks(worker) == [13, 10, 10]
    await needs_tracking(engine)
    await hashes_read(engine)
    assert await stocks(worker) == [13, 10, 10]
    assert await hashes_read(engine) == 0


async def test_a_page_whose_connection_breaks_before_the_reply_is_read_over_the_next_one(
    worker: PartitionedStore, engine: TestConnection, networks: list[Network]
) -> None:
    for number, network in enumerate(networks):
        network.replies_pass.clear()
        reading = asyncio.create_task(stocks(worker))
        await commands_arrive([network])
        await engine.send("HINCRBY", mug_in(number), "stock", 1)
        network.cut()
        network.replies_pass.set()
        assert await reading == [11 + number, 10, 10]


async def test_a_cancelled_page_leaves_nothing_that_is_wrong_later_and_disturbs_no_other_page(
    worker: PartitionedStore, engine: TestConnection
) -> None:
    for number in range(1, 60):
        partition = number % COUNT
        await engine.send("HINCRBY", mug_in(partition), "stock", 1)
        cancelled, reading = (asyncio.create_task(stocks(worker)) for _ in range(2))
        for _ in range(number % 20):
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert (await reading)[0] == 10 + 2 * number - 1
        await engine.send("HINCRBY", mug_in(partition), "stock", 1)
        assert await stocks(worker) == [10 + 2 * number, 10, 10]


async def test_a_lost_script_and_a_key_of_another_type_are_handled_as_without_tracking(
    worker: PartitionedStore, engine: TestConnection
) -> None:
    await engine.send("SCRIPT", "FLUSH")
    await engine.send("HINCRBY", mug_in(2), "stock", 1)
    assert await stocks(worker) == await stocks(worker) == [11, 10, 10]
    await engine.send("DEL", mug_in(2))
    await engine.send("SET", mug_in(2), "text")
    with pytest.raises(ErrorReply) as error:
        await page(worker)
    assert error.value.code == "WRONGTYPE"
    await engine.send("DEL", mug_in(2))
    assert await stocks(worker) == [7, 10, 10]


async def test_if_one_partition_does_not_track_pages_are_read_whole(engine: TestConnection, engine_url: str) -> None:
    await engine.send("ACL", "SETUSER", "reader", "reset", "on", ">secret", "~*", "+@all", "-client|tracking")
    refusing = f"unix://reader@{engine_url.removeprefix('unix://')}?password=secret"
    async with open_partitioned_store(engine_url, refusing, engine_url) as store:
        await store.products.add(new_mug(stock=10))
        with capture_logs() as logs:
            assert await stocks(store) == await stocks(store) == [10]
        for partition in range(COUNT):
            await engine.send("HINCRBY", mug_in(partition), "stock", 1)
            assert await stocks(store) == [11 + partition]
    await needs_tracking(engine)
    assert [entry["event"] for entry in logs] == ["products_not_tracked"]


async def test_if_a_partition_refuses_to_answer_pages_are_read_whole(
    engine: TestConnection, url_of_holdfast: str
) -> None:
    async with open_partitioned_store(*[url_of_holdfast] * COUNT) as store:
        await store.products.add(new_mug(stock=10))
        assert await stocks(store) == await stocks(store) == [10]
        await engine.send("ACL", "SETUSER", "holdfast", "-ping")
        try:
            await engine.send("HINCRBY", mug_in(2), "stock", 1)
            assert await stocks(store) == await stocks(store) == [11]
        finally:
            await engine.send("ACL", "SETUSER", "holdfast", "+ping")


class AskedClient:
    """Takes the place of the client of a partition. The test decides when it answers what has changed."""

    def __init__(self, sums: SummedProducts, *, is_overloaded: bool) -> None:
        self._tracked = sums.new_tracked()
        self._is_overloaded = is_overloaded
        self.answer = asyncio.get_running_loop().create_future()

    async def begin_tracking(self) -> TrackedProducts[Any]:
        return self._tracked

    def if_current(self, tracked: TrackedProducts[Any]) -> TrackedProducts[Any]:
        return tracked

    def catch_up(self) -> asyncio.Future[Any]:
        if self._is_overloaded:
            raise Overloaded("too many commands wait")
        return self.answer


@pytest.mark.parametrize("refused", [0, 1])
async def test_if_one_client_is_overloaded_the_answers_of_the_others_are_still_awaited(refused: int) -> None:
    clients: list[Any] = []
    sums = SummedProducts(2, clients)
    clients += [AskedClient(sums, is_overloaded=number == refused) for number in range(2)]
    page = await sums.begin()
    assert page is not None
    await asyncio.sleep(0)
    assert page.answers.done() == (refused == 0)  # the second one was not asked
    if refused == 1:
        clients[0].answer.set_exception(StorageUnavailable("lost"))  # asyncio logs an error that nobody awaits
    assert isinstance(await page.answers, Overloaded)
