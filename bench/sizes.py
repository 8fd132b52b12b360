"""Measures how many bytes of Redis a product, an order, an event, an Idempotency-Key and a customer take.

Each thing is added many times, and the growth of `used_memory` is divided by the number. `docs/operations.md` has the
results.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bench.data import DESCRIPTION, LARGE_STOCK, PRICE, product_name
from service.domain.errors.order_refusals import ProductsNotFound
from service.domain.requests import NewOrder, NewProduct, NewReturn
from service.domain.times import Milliseconds
from service.engine.launcher import run_engine
from service.ops.archive import archive
from service.ops.archive_file import ArchiveFile
from service.storage.connection import MultiplexedConnection
from service.storage.store import Store

SHOP: Final = "shop"
PRODUCTS: Final = 1000
_TOGETHER: Final = 1000
"""Requests that are sent at a time."""

_NOON: Final = Milliseconds(1_577_880_000_000)
_STEP_BYTES: Final = 10_000
"""Differences below this are those of the engine itself. They are less than a byte per thing."""


class Sizes:
    """An engine with a shop. Its clock stands still."""

    def __init__(self, connection: MultiplexedConnection, count: int) -> None:
        self._connection = connection
        self._count = count
        self.store = self.new_store()

    def new_store(self, *, events_max: int = 100, now: Milliseconds = _NOON) -> Store:
        """Return a Store. Its event stream is short, because events are measured for themselves."""
        return Store(self._connection, shop=SHOP, durability="none", events_max=events_max, clock=lambda: now)

    async def used(self) -> int:
        """Return the memory without the buffers of clients, when the engine has finished growing its tables."""
        found = [-1, -2, -3]
        while len(set(found)) > 1:
            await asyncio.sleep(0.2)
            lines = (await self._connection.send("INFO", "memory")).split("\r\n")
            facts = dict(line.split(":", 1) for line in lines if ":" in line)
            used = int(facts["used_memory"]) - int(facts["mem_clients_normal"])
            found = [*found[1:], used // _STEP_BYTES]
        return found[-1] * _STEP_BYTES

    async def empty(self, **options: Any) -> None:
        """Remove everything, and add products. `options`: those of `new_store`."""
        await self._connection.send("FLUSHALL", "SYNC")
        self.store = self.new_store(**options)
        for number in range(1, PRODUCTS + 1):
            await self.store.products.add(new_product(number))

    async def growth(self, make: Callable[[int], Awaitable[object]]) -> float:
        """Call `make` with 0, 1, 2, ..., and return the growth for each call."""
        before = await self.used()
        for start in range(0, self._count, _TOGETHER):
            await asyncio.gather(*[make(number) for number in range(start, min(start + _TOGETHER, self._count))])
        return (await self.used() - before) / self._count

    async def growth_of_orders(
        self, lines: int = 1, *, key: bool = False, events_max: int = 100, **fields: Any
    ) -> float:
        """Begin anew, and return the growth for each order."""
        await self.empty(events_max=events_max)
        return await self.growth(lambda number: self.place(number, lines, key=key, **fields))

    async def place(self, number: int, lines: int = 1, *, key: bool = False, **fields: Any) -> object:
        """Place an order of different products. A field that is True has other 16 characters in each order."""
        ids = [(number + line) % PRODUCTS + 1 for line in range(lines)]
        named = {name: f"{number:016x}" if value is True else value for name, value in fields.items()}
        products = [{"product_id": id_, "quantity": 1} for id_ in ids]
        new = NewOrder.model_validate({"products": products, **named})
        return await self.store.orders.place(new, f"{number:036x}" if key else None)

    async def refuse(self, number: int) -> None:
        """Send an order of a product that does not exist, with an Idempotency-Key."""
        new = NewOrder.model_validate({"products": [{"product_id": 10 * PRODUCTS, "quantity": 1}]})
        with suppress(ProductsNotFound):
            await self.store.orders.place(new, f"{number:036x}")

    async def give_back(self, number: int) -> object:
        """Return all units of an order of one product."""
        lines = [{"product_id": number % PRODUCTS + 1, "quantity": 1}]
        return await self.store.returns.make(number + 1, NewReturn.model_validate({"products": lines}))

    async def growth_of_archived_orders(self, file: Path) -> float:
        """Return what is left of each order, after all orders were archived."""
        await self.empty()
        before = await self.used()
        await self.growth(lambda number: self.place(number, key=True, reference=True, customer=True))
        later = Milliseconds(_NOON + 1000)
        with ArchiveFile(file, SHOP) as archive_file:
            report = await archive(self.new_store(now=later), SHOP, archive_file, later, 0)
        assert report.archived == self._count
        return (await self.used() - before) / self._count


def new_product(number: int) -> NewProduct:
    return NewProduct.model_validate(
        {"id": number, "name": product_name(number), "description": DESCRIPTION, "price": PRICE, "stock": LARGE_STOCK}
    )


async def measure(count: int, folder: Path) -> dict[str, float]:
    """Return the bytes of each thing."""
    with run_engine(folder / "data", "none") as url:
        async with MultiplexedConnection(url, timeout=60, max_in_flight=100_000) as connection:
            sizes = Sizes(connection, count)
            await sizes.empty()
            found = {
                "product": await sizes.growth(lambda number: sizes.store.products.add(new_product(100_000 + number)))
            }
            plain = found["order of 1 product"] = await sizes.growth_of_orders()
            found["its return"] = await sizes.growth(sizes.give_back)
            found["order of 3 products"] = await sizes.growth_of_orders(3)
            found["pending order of 1 product"] = await sizes.growth_of_orders(status="pending")
            found["Idempotency-Key"] = await sizes.growth_of_orders(key=True) - plain
            await sizes.empty()
            found["remembered refusal"] = await sizes.growth(sizes.refuse)
            found["reference"] = await sizes.growth_of_orders(reference=True) - plain
            found["first order of a customer"] = await sizes.growth_of_orders(customer=True) - plain
            found["next order of a customer"] = await sizes.growth(lambda n: sizes.place(n, customer=True)) - plain
            found["event of an order"] = await sizes.growth_of_orders(events_max=10_000_000) - plain
            found["archived order"] = await sizes.growth_of_archived_orders(folder / "archive.jsonl")
            return found


def main() -> None:
    """Measure, and print a line per thing, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="how many of each thing")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = asyncio.run(measure(given.count, Path(folder)))
    if given.json:
        print(json.dumps({name: round(value) for name, value in sizes.items()}))
        return
    for name, value in sizes.items():
        print(f"{name:30}{value:6.0f} bytes")


if __name__ == "__main__":
    main()
