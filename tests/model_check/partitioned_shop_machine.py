"""The same state machine for a shop with three partitions: clients must not notice that there are several."""

from collections import Counter
from typing import Any

from hypothesis import strategies as st

from service.domain.errors.return_refusals import ReturnExceedsStockLimit
from service.domain.requests import ProductsQuery
from service.ops.audit_partitions import audit_whole_shop
from service.storage import keys
from service.storage.partitioned import PartitionedStore
from tests.model_check.results import result_or_refusal
from tests.model_check.shop_machine import ShopMachine
from tests.support.model_records import ReturnRequest
from tests.support.partitions import assert_nothing_is_lost, make_partitioned_store, open_partitioned_store
from tests.support.redis_content import events_at, hash_at
from tests.support.shop import SHOP

COUNT = 3
NAMES = [keys.partition(SHOP, number) for number in range(COUNT)]
_SUMS = ("stock", "held", "sold", "received")
_OF_PARTITIONS = ("version", "share", "moved", "claim")


class PartitionedShopMachine(ShopMachine):
    """Two workers on a shop with partitions. The model knows no partitions."""

    stores: Any
    sweepers: Any

    def __init__(self, url: str | None, outcomes: Counter[str]) -> None:
        super().__init__(url, outcomes)
        self.sweepers = [make_partitioned_store(self.redis, count=COUNT, clock=self.clock) for _ in range(2)]
        if url is None:
            self.stores = [make_partitioned_store(self.redis, count=COUNT, clock=self.clock) for _ in range(2)]
        else:
            self.stores = [self.run(self.open_store(url)) for _ in range(2)]

    async def open_store(self, url: str) -> PartitionedStore:
        """Return the Store of a worker with a connection to each partition: so it keeps the products of pages."""
        opened = open_partitioned_store(*[url] * COUNT, clock=self.clock)
        return await self.resources.enter_async_context(opened)

    def sweep(self, worker: int, seconds: int, limit: int) -> None:
        """Expire all overdue orders: each partition has a sweeper of its own."""
        self.clock.forward(seconds)
        for partition in self.sweepers[worker].partitions:
            self.result_of(partition.expired_holds.expire_due(100))
        for order_id in self.model.in_state("overdue"):
            self.model.end(order_id, "expired")
        self.run(self.sweepers[worker].deliver())

    def archive(self, worker: int, keep: int, age: int) -> None:
        """Leave archives to the tests of the commands: each partition archives its orders."""

    def repeat_keys(self, repeats: list[tuple[int, str, int]], data: st.DataObject) -> None:
        """Leave out keys that are used for another call: a key of a return belongs to the partition of the order."""
        super().repeat_keys([repeat for repeat in repeats if repeat[1] != "other call"], data)

    def send_return(self, worker: int, request: ReturnRequest, key: str | None) -> None:
        """Leave out returns that exceed the limit of the stock: a return knows its partition only."""
        order = self.model.orders.get(request.order_id)
        refusal = order and result_or_refusal(lambda: self.model.return_refusal(order, request.new_return))
        if not isinstance(refusal, ReturnExceedsStockLimit):
            super().send_return(worker, request, key)

    async def assert_stock_and_holds(self) -> None:
        await self.assert_pages()
        products = list(self.model.products.values())
        on_their_way = await self.units_on_their_way()
        rows = [await self.product(product.id, on_their_way[product.id]) for product in products]
        assert rows == [product.fields() for product in products]

    async def assert_pages(self) -> None:
        """Read a page of each worker: most of it is known from the step before."""
        expected = [product.json() for product in self.model.list_products(None)]
        for store in self.stores:
            page, _ = await store.products.list(ProductsQuery.model_validate({}))
            assert [product.json for product in page] == expected[:100]

    async def units_on_their_way(self) -> Counter[int]:
        """Return the units of each product that a partition has given, and another has not taken in."""
        units = Counter[int]()
        for to in range(COUNT):
            taken = await hash_at(self.redis, keys.taken(NAMES[to]))
            for source, name in enumerate(NAMES):
                for member in await self.redis.send("ZRANGE", keys.outgoing(name, to), 0, -1):
                    transfer_id, product_id, number = map(int, member.split())
                    units[product_id] += number if transfer_id > int(taken.get(str(source), 0)) else 0
        return units

    async def product(self, product_id: int, on_their_way: int) -> dict[str, str]:
        """Return the fields of a product, which must be the same in all partitions, with the sums of their units."""
        hashes = [await hash_at(self.redis, keys.product(name, product_id)) for name in NAMES]
        sums = {name: sum(int(fields.pop(name)) for fields in hashes) for name in _SUMS}
        written_off = sum(int(fields.pop("written_off", 0)) for fields in hashes)
        for fields in hashes:
            for name in _OF_PARTITIONS:
                fields.pop(name, None)
        assert hashes == [hashes[0]] * COUNT
        sums["stock"] += on_their_way
        sums["received"] += on_their_way
        texts = {name: str(number) for name, number in sums.items()}
        return {**hashes[0], **texts, **({"written_off": str(written_off)} if written_off else {})}

    async def assert_all_data(self) -> None:
        await assert_nothing_is_lost(self.redis, self.stores[0])
        orders = {}
        for order_id in self.model.orders:
            orders[order_id] = await hash_at(self.redis, keys.order(NAMES[order_id % COUNT], order_id))
        assert orders == {order.id: order.fields() for order in self.model.orders.values()}
        report = await audit_whole_shop(self.stores[0], SHOP)
        assert report.findings == []
        assert report.orders == len(orders)
        events = [event for name in NAMES for event in await events_at(self.redis, keys.events(name))]
        assert _comparable(events) == _comparable(self.model.events)


def _comparable(events: list[dict[str, str]]) -> list[list[tuple[str, str]]]:
    """Return the events in a sequence that does not depend on the partitions, without what partitions see."""
    return sorted(
        sorted((name, value) for name, value in event.items() if (event["event"], name) != ("stock_moved", "stock"))
        for event in events
    )
