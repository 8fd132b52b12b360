"""The audit of a shop with partitions: what no partition can see by itself, and what moves while it reads."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import Any

import pytest

from service.domain.errors.base import HoldfastError
from service.domain.money import Cents
from service.domain.requests import ProductChange
from service.ops.audit_partitions import audit_whole_shop
from service.ops.audit_report import AuditInconclusive, Report
from service.storage import keys
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from service.storage.transfers import Transfer, Wish
from tests.support.audited_shop import assert_no_findings, order, product, stock_change
from tests.support.partitions import home_of, make_partitioned_store
from tests.support.shop import SHOP

COUNT = 4
NAMES = [keys.partition(SHOP, number) for number in range(COUNT)]
CUP, MUG = 5, 7
"""Products of `fill`. Their homes are the partitions 1 and 3."""


async def fill(redis: CommandSender) -> PartitionedStore:
    """Return a shop with two products and orders in all partitions. Units have moved to partition 2."""
    store = make_partitioned_store(redis, count=COUNT)
    await store.products.add(product(CUP, stock=40))
    await store.products.add(product(MUG, stock=4))
    for number in range(12):
        await store.orders.place(order((CUP, 1), hold=900 if number % 3 else None), f"key-{number}")
    await store.orders.place(order((CUP, 1), (MUG, 3), customer=customer_of(store, 2)))
    await store.deliver()
    return store


def customer_of(store: PartitionedStore, number: int) -> str:
    """Return a customer whose orders are in a partition."""
    return next(name for name in map("customer-{}".format, count()) if store.all.of_text(name) == number)


async def give(store: PartitionedStore, source: int, to: int, product_id: int, units: int = 1) -> list[Transfer]:
    """Give units away. Return all transfers on their way."""
    return await store.all.exchange.partitions[source].give(to, "0", [Wish(product_id, units, units, 0)])


async def move(store: PartitionedStore, source: int, to: int, product_id: int, units: int = 1) -> None:
    """Give units, take them in and settle them."""
    transfers = store.all.exchange.partitions
    taken = await transfers[to].take(source, await give(store, source, to, product_id, units))
    await transfers[source].settle(to, taken.id)


def audit(store: PartitionedStore) -> Coroutine[Any, Any, Report]:
    return audit_whole_shop(store, SHOP)


def texts(report: Report) -> list[str]:
    return [f"{finding.key} {finding.what}" for finding in report.findings]


async def test_a_shop_with_partitions_has_no_findings(redis: CommandSender) -> None:
    report = await audit(await fill(redis))
    assert_no_findings(report)
    assert (report.products, report.orders, report.pending) == (2, 13, 8)
    assert report.as_dict().keys() == {
        *("balanced", "products", "orders", "pending", "archived", "events_followed", "findings"),
    }


async def test_an_empty_shop_with_partitions_is_not_called_balanced(redis: CommandSender) -> None:
    with pytest.raises(AuditInconclusive, match="the shop 'test' is empty"):
        await audit(make_partitioned_store(redis, count=COUNT))


async def test_a_partition_without_orders_is_not_a_finding(redis: CommandSender) -> None:
    store = make_partitioned_store(redis, count=COUNT)
    await store.products.add(product(CUP, stock=1))
    await store.orders.place(order((CUP, 1)), "key")
    assert_no_findings(await audit(store))


async def test_units_on_their_way_are_not_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await give(store, 0, 1, CUP, 2)
    await give(store, 0, 3, CUP)
    report = await audit(store)
    assert_no_findings(report)


async def test_units_that_arrived_but_are_not_settled_are_not_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await store.all.exchange.partitions[1].take(0, await give(store, 0, 1, CUP, 2))
    assert_no_findings(await audit(store))


async def test_a_lost_transfer_is_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await give(store, 0, 1, CUP, 2)
    await redis.send("DEL", keys.outgoing(NAMES[0], 1))
    assert texts(await audit(store)) == [
        "{test:1}:product:5 is off by -2 units in all partitions together: more were given away than arrived or are on "
        "their way"
    ]


async def test_a_transfer_that_is_taken_in_twice_is_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    transfers = await give(store, 0, 1, MUG, 1) or await give(store, 0, 1, CUP, 1)
    await store.all.exchange.partitions[1].take(0, transfers)
    await redis.send("HDEL", keys.taken(NAMES[1]), 0)
    await store.all.exchange.partitions[1].take(0, transfers)
    [text] = texts(await audit(store))
    assert "is off by +1 units in all partitions together: more arrived than were given away" in text


async def test_units_in_one_partition_only_are_balanced_there_and_still_found(redis: CommandSender) -> None:
    store = await fill(redis)
    for field in ("stock", "received", "moved"):
        await redis.send("HINCRBY", keys.product(NAMES[2], MUG), field, 1)
    [text] = texts(await audit(store))
    assert text.startswith("{test:3}:product:7 is off by +1 units")


async def test_a_transfer_that_nobody_has_given_is_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await move(store, 0, 1, CUP)
    taken = await redis.send("HGET", keys.taken(NAMES[1]), 0)
    await redis.send("HSET", keys.sent(NAMES[0]), 1, 12)
    assert texts(await audit(store)) == [
        f"{{test:1}}:taken has the transfer {taken} of partition 0, but {{test:0}}:sent is only 12"
    ]


async def test_lost_units_are_found_even_if_the_ids_of_transfers_were_set_back(redis: CommandSender) -> None:
    store = await fill(redis)
    await move(store, 0, 1, CUP)
    await redis.send("HSET", keys.sent(NAMES[0]), 1, 12)
    for field in ("stock", "received", "moved"):
        await redis.send("HINCRBY", keys.product(NAMES[1], CUP), field, 1)
    assert [finding.key for finding in (await audit(store)).findings] == ["{test:1}:taken", "{test:1}:product:5"]


async def test_an_order_of_a_customer_of_another_partition_is_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    placed = await store.partitions[3].orders.place(order((CUP, 1), customer=customer_of(store, 2)))
    assert texts(await audit(store)) == [
        f"{{test:3}}:order:{placed.order.id} is in partition 3, but its customer belongs to partition 2"
    ]


async def test_an_order_with_an_id_of_another_partition_is_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    [key, *_] = await redis.send("KEYS", "{test:1}:order:*")
    order_id = int(key.rpartition(":")[2])
    await redis.send("RENAME", key, keys.order(NAMES[1], order_id + 1))
    what = "is in partition 1, but its id is one of partition 2"
    assert f"{{test:1}}:order:{order_id + 1} {what}" in texts(await audit(store))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("HSET", "version", "17"), "has the catalogue version 17, but {test:1}:product:5 has VERSION"),
        (("HDEL", "version"), "has the catalogue version none, but {test:1}:product:5 has VERSION"),
        (
            ("HSET", "version", "3000000000000000"),
            "has the catalogue version 3000000000000000, but {test:1}:product:5 has VERSION",
        ),
        (("HSET", "price", "0.01"), "has price '0.01', but {test:1}:product:5 has '19.99' in the same version"),
    ],
)
async def test_a_stale_catalogue_is_a_finding(redis: CommandSender, change: tuple[str, ...], expected: str) -> None:
    store = await fill(redis)
    version = await redis.send("HGET", keys.product(NAMES[1], CUP), "version")
    command, *rest = change
    await redis.send(command, keys.product(NAMES[2], CUP), *rest)
    assert texts(await audit(store)) == [f"{{test:2}}:product:5 {expected.replace('VERSION', version)}"]


async def test_a_product_that_its_home_has_lost_is_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await redis.send("DEL", keys.product(NAMES[1], CUP), keys.product(NAMES[3], MUG))
    found = texts(await audit(store))
    assert any(text.startswith("{test:0}:product:5 has the catalogue version") for text in found)
    assert any(text.startswith("{test:2}:product:7 has the catalogue version") for text in found)


async def test_a_change_that_has_not_reached_all_partitions_is_not_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await home_of(store, CUP).products.withdraw(CUP)  # without a push
    assert_no_findings(await audit(store))
    await store.deliver()
    assert_no_findings(await audit(store))
    assert await redis.send("HGET", keys.product(NAMES[0], CUP), "withdrawn") == "1"


async def test_units_that_come_before_the_product_are_not_a_finding(redis: CommandSender) -> None:
    store = await fill(redis)
    await home_of(store, 9).products.add(product(9, stock=9))
    await move(store, 1, 2, 9, 3)
    assert await redis.send("HGET", keys.product(NAMES[2], 9), "version") is None
    assert_no_findings(await audit(store))
    await store.deliver()
    assert_no_findings(await audit(store))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ("ZADD", keys.outgoing(NAMES[0], 1), 12, "12 five 1"),
            "{test:0}:outgoing:1 has the member '12 five 1' with the score 12, which is no transfer",
        ),
        (
            ("ZADD", keys.outgoing(NAMES[0], 1), 13, "12 5 1"),
            "{test:0}:outgoing:1 has the member '12 5 1' with the score 13, which is no transfer",
        ),
        (("HSET", keys.sent(NAMES[2]), 9, 12), "{test:2}:sent has the field '9', which is no other partition"),
        (("HSET", keys.taken(NAMES[2]), 2, 12), "{test:2}:taken has the field '2', which is no other partition"),
        (
            ("HSET", keys.taken(NAMES[2]), 0, "late"),
            "{test:2}:taken has 'late' for partition 0, not the id of a transfer",
        ),
        (
            ("HSET", keys.product(NAMES[0], CUP), "moved", "all"),
            "{test:0}:product:5 has moved 'all', expected a whole number",
        ),
    ],
)
async def test_damaged_transfers_are_findings(
    redis: CommandSender, command: tuple[str | int, ...], expected: str
) -> None:
    store = await fill(redis)
    await redis.send(*command)
    assert expected in texts(await audit(store))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (keys.sent(NAMES[1]), "is a string, not a hash"),
        (keys.taken(NAMES[1]), "is a string, not a hash"),
        (keys.unpropagated(NAMES[1]), "is a string, not a sorted set"),
        (keys.outgoing(NAMES[1], 0), "is a string, not a sorted set"),
    ],
)
async def test_a_key_of_another_type_is_a_finding(redis: CommandSender, key: str, expected: str) -> None:
    store = await fill(redis)
    await redis.send("SET", key, "x")
    assert texts(await audit(store)) == [f"{key} {expected}"]


async def test_damage_in_one_partition_is_found_as_in_a_shop_without(redis: CommandSender) -> None:
    store = await fill(redis)
    await redis.send("HINCRBY", keys.product(NAMES[2], CUP), "stock", 1)
    [text] = texts(await audit(store))
    assert text.startswith("{test:2}:product:5 has received")


class BetweenReads:
    """A CommandSender that lets something happen after partition 0 was read, and before the others are."""

    def __init__(self, redis: CommandSender, happens: Callable[[int], Awaitable[object]]) -> None:
        self.redis = redis
        self.happens = happens
        self.reads = 0
        self.lock = asyncio.Lock()

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Awaitable[Any]:
        return asyncio.ensure_future(self._send(*command))

    async def _send(self, *command: bytes | str | int) -> Any:
        if not any(keys.sent(name) in command and keys.taken(name) in command for name in NAMES):
            return await self.redis.send(*command)
        async with self.lock:
            reply = await self.redis.send(*command)
            if keys.sent(NAMES[0]) in command:
                self.reads += 1
                await self.happens(self.reads)
            return reply


@pytest.mark.parametrize("source", [0, 3])
async def test_transfers_between_the_reads_of_two_partitions_are_not_findings(
    redis: CommandSender, source: int
) -> None:
    store = await fill(redis)

    await store.products.add(product(9, stock=400))

    async def happens(read: int) -> None:
        if read < 20:
            await move(store, source, 3 - source, 9, 1 + read % 3)

    sender = BetweenReads(redis, happens)
    assert_no_findings(await audit(make_partitioned_store(sender, count=COUNT)))
    assert sender.reads >= 20


async def test_an_audit_that_never_sees_two_partitions_agree_says_so(
    redis: CommandSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.audit_partitions.MAX_READS", 10)
    monkeypatch.setattr("service.ops.audit_partitions.PAUSE_SECONDS", 0)
    store = await fill(redis)

    async def happens(read: int) -> None:
        await give(store, 0, 3, CUP, 1)
        await store.all.exchange.partitions[3].take(0, await give(store, 0, 3, CUP, 1))
        await move(store, 3, 0, CUP, 1 + read % 2)

    with pytest.raises(AuditInconclusive, match="units of product 5 moved between partitions during each of 10 reads"):
        await audit(make_partitioned_store(BetweenReads(redis, happens), count=COUNT))


async def test_a_healthy_shop_under_load_has_no_findings(redis: CommandSender) -> None:
    store, other = await fill(redis), make_partitioned_store(redis, count=COUNT)
    await store.products.add(product(9, stock=COUNT))
    audits = 0

    async def load(shop: PartitionedStore, seed: int) -> None:
        for number in range(seed, 10_000, 7):
            lines = [(CUP, 1 + number % 3), (9, 1)][: 1 + number % 2]
            try:
                placed = await shop.orders.place(order(*lines, hold=900), f"load-{number}")
                await shop.holds.cancel(placed.order.id)
                if number % 5 == 0:
                    await shop.stock.change(CUP, stock_change(1 - 2 * (number % 2)))
                if number % 11 == 0:
                    await shop.products.change(9, ProductChange(price=Cents(number)))
            except HoldfastError:
                pass  # sold out
            if audits == 3:
                return

    working = [asyncio.create_task(load(shop, seed)) for seed, shop in enumerate([store, other])]
    try:
        for _ in range(3):
            assert_no_findings(await audit(store))
            audits += 1
    finally:
        audits = 3
        await asyncio.gather(*working)
    await store.deliver()
    assert_no_findings(await audit(store))
