"""The products on sale: add, read, change, withdraw."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from service.domain.errors.refusals import ProductHasChanged, ProductIdTaken, ProductNotFound, SaleTimeEmpty
from service.domain.errors.storage import StorageUnavailable
from service.domain.limits import MAX_ID
from service.domain.product import Product
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.client import MAX_SCAN_STEP, RedisClient
from service.storage.partition import Partition
from service.storage.product_list import ProductList
from service.storage.records import (
    PRODUCT_FIELDS,
    catalogue_pairs,
    change_pairs,
    product_pairs,
    read_added_product,
    read_products,
)
from service.storage.refusals import unknown_reply
from service.storage.sender import ErrorReply

if TYPE_CHECKING:
    from service.domain.requests import NewProduct, ProductChange


class Products:
    """The products of a shop. Each method also raises what RedisClient raises.

    `by`: the name of the API key of the request, for the event.
    """

    def __init__(self, client: RedisClient, partition: Partition | None = None) -> None:
        """`partition`: of a shop with several; None: the shop has no partitions."""
        self._client = client
        self._partition = partition
        self.list = ProductList(client, partition, self.read_many).read
        self._unpropagated = () if partition is None else (keys.unpropagated(client.shop),)

    async def add(self, new: "NewProduct", by: str = "") -> Product:
        """Add a product. Raise ProductIdTaken if the id that the client chose was ever used."""
        client = self._client
        pairs = product_pairs(new)
        product_id = new.id or await self.next_id()
        while True:
            reply = await client.run("add_product", *self._call(product_id, new.stock, pairs, by))
            match reply:
                case ["added"]:
                    return read_added_product(product_id, new.stock, pairs)
                case ["taken"] if new.id is not None:
                    raise ProductIdTaken(new.id)
                case ["taken"]:  # a client has chosen this id for another product
                    product_id = await self.search_id(product_id + 1)
                case _:
                    raise unknown_reply("add_product", reply)

    async def add_many(self, products: "Sequence[NewProduct]") -> Sequence[bool]:
        """Add products that have ids, all at the same time. Return for each whether it was added: its id was free."""
        calls = [self._call(new.id or 0, new.stock, product_pairs(new), "") for new in products]
        added = []
        for reply in await self._client.run_many("add_product", calls):
            if reply not in (["added"], ["taken"]):
                raise unknown_reply("add_product", reply)
            added.append(reply == ["added"])
        return added

    def _call(
        self, product_id: int, stock: int, pairs: Sequence[str], by: str
    ) -> tuple[Sequence[str], tuple[str | int, ...]]:
        """Return KEYS and ARGV of lua/add_product.lua."""
        client = self._client
        return (
            keys.product(client.shop, product_id),
            keys.products(client.shop),
            keys.events(client.shop),
            *self._unpropagated,
        ), add_product_args(
            product_id=product_id,
            stock=stock,
            events_max=client.events_max,
            by=by,
            others=client.id_step - 1,
            share=stock // client.id_step,
            pairs=pairs,
        )

    async def next_id(self) -> int:
        """Return the next id of the counter. Raise StorageUnavailable if it does not count."""
        client = self._client
        counter = keys.product_ids(client.shop)
        try:
            product_id = int(await client.send("INCRBY", counter, 1, safe_to_repeat=True))
        except ErrorReply as error:
            raise StorageUnavailable(f"{counter} cannot be counted up: {error}") from error
        return product_id if 1 <= product_id <= MAX_ID else await self.search_id(1)

    async def search_id(self, start: int) -> int:
        """Move the counter to the first free id from `start` on, and return this id.

        If there is none, begin again at 1: a client has chosen the highest id, or somebody has set the counter.
        """
        client = self._client
        product_id = await self._first_free_id(start)
        if product_id > MAX_ID:
            product_id = await self._first_free_id(1)
        moved = await client.move_counter(keys.product_ids(client.shop), product_id)
        return product_id if moved else await self.next_id()

    async def _first_free_id(self, product_id: int) -> int:
        """Return the lowest id from `product_id` on that no product has ever had; MAX_ID + 1 if there is none.

        Every id in between is read: a search with growing steps would pass the highest id after 53 products with
        certain ids.
        """
        client = self._client
        while product_id <= MAX_ID:
            ids = range(product_id, min(product_id + MAX_SCAN_STEP, MAX_ID + 1))
            rows = await client.read_hashes([keys.product(client.shop, id_) for id_ in ids], ("id", "stock"))
            for free_id, row in zip(ids, rows, strict=True):
                if row == [None, None]:
                    return free_id
            product_id = ids[-1] + 1
        return product_id

    async def get(self, product_id: int) -> Product:
        """Return a product on sale. Raise ProductNotFound."""
        self._client.admit()
        [product] = await self.read_many([product_id])
        if product is None:
            raise ProductNotFound(str(product_id))
        return product

    async def change(
        self,
        product_id: int,
        change: "ProductChange",
        expected_versions: Container[str] | None = None,
        by: str = "",
    ) -> Product:
        """Set the fields that were given, and remove the rules about the sale that are None.

        `expected_versions`: the catalogue versions that the product may have; None: any.

        Raise ProductNotFound, ProductHasChanged and SaleTimeEmpty.
        """
        client = self._client
        while True:
            reply = await client.run(
                "change_product",
                (keys.product(client.shop, product_id), keys.events(client.shop), *self._unpropagated),
                change_product_args(
                    product_id=product_id,
                    events_max=client.events_max,
                    by=by,
                    fields=PRODUCT_FIELDS,
                    changes=change_pairs(change),
                    expected_pairs=await self._expected_pairs(product_id, expected_versions),
                ),
            )
            match reply:
                case ["changed", *row]:
                    [product] = read_products([product_id], [row])
                    assert product is not None
                    return product
                case ["conflict"]:
                    continue  # somebody has changed it since it was read: it may have an expected version again
                case ["absent"]:
                    raise ProductNotFound(str(product_id))
                case ["empty", start, end]:
                    raise SaleTimeEmpty(Milliseconds(int(start)), Milliseconds(int(end)))
                case _:
                    raise unknown_reply("change_product", reply)

    async def withdraw(self, product_id: int, expected_versions: Container[str] | None = None, by: str = "") -> None:
        """Withdraw a product from sale. For a withdrawn product, do nothing.

        `expected_versions`: the catalogue versions that the product may have; None: any.

        Raise ProductNotFound if it was never added, and ProductHasChanged.
        """
        client = self._client
        while True:
            reply = await client.run(
                "withdraw_product",
                (
                    keys.product(client.shop, product_id),
                    keys.products(client.shop),
                    keys.events(client.shop),
                    *self._unpropagated,
                ),
                withdraw_product_args(
                    product_id=product_id,
                    events_max=client.events_max,
                    by=by,
                    expected_pairs=await self._expected_pairs(product_id, expected_versions),
                ),
            )
            match reply:
                case ["withdrawn"]:
                    return
                case ["conflict"]:
                    continue
                case ["absent"]:
                    raise ProductNotFound(str(product_id))
                case _:
                    raise unknown_reply("withdraw_product", reply)

    async def _expected_pairs(self, product_id: int, versions: Container[str] | None) -> Sequence[str]:
        """Return the fields that the product must still have when a script changes it. Raise ProductHasChanged.

        Redis holds no version: the script compares the fields, so products without conditional requests cost nothing.
        """
        if versions is None:
            return ()
        [product] = await self.read_many([product_id])
        if product is None:
            return ("name", "")  # no product has this: the script says whether it is withdrawn or was never added
        if product.catalogue_version() not in versions:
            raise ProductHasChanged(product_id)
        return catalogue_pairs(product)

    async def read_many(self, ids: Sequence[int], *, include_withdrawn: bool = False) -> Sequence[Product | None]:
        """Return the products of these ids. None: the product is absent or withdrawn."""
        shop = self._client.shop
        names = [keys.product(shop, product_id) for product_id in ids]
        if self._partition is None:
            whole = await self._client.read_hashes(names, PRODUCT_FIELDS)
            return read_products(ids, whole, include_withdrawn=include_withdrawn)
        # `moved`: the units of a product that came here from other partitions.
        rows = await self._client.read_hashes(names, (*PRODUCT_FIELDS, "moved"))
        products = read_products(ids, [row[:-1] for row in rows], include_withdrawn=include_withdrawn)
        return await self._with_all_units(products, [int(row[-1] or 0) for row in rows])

    async def _with_all_units(
        self, products: Sequence[Product | None], moved: Sequence[int]
    ) -> Sequence[Product | None]:
        """Return products with the stock of all partitions: a sum that is taken over a moment."""
        partition = self._partition
        assert partition is not None
        ids = [product.id for product in products if product is not None]
        elsewhere = await partition.all.exchange.looks.totals(ids, without=partition.number) if ids else {}
        return [
            product and product._replace(stock=max(0, product.stock - units + elsewhere[product.id]))
            for product, units in zip(products, moved, strict=True)
        ]


def add_product_args(
    *, product_id: int, stock: int, events_max: int, by: str, others: int, share: int, pairs: Sequence[str]
) -> tuple[str | int, ...]:
    """Return ARGV of lua/add_product.lua."""
    return (product_id, stock, events_max, by, others, share, *pairs)


def change_product_args(
    *,
    product_id: int,
    events_max: int,
    by: str,
    fields: Sequence[str],
    changes: Sequence[str],
    expected_pairs: Sequence[str] = (),
) -> tuple[str | int, ...]:
    """Return ARGV of lua/change_product.lua."""
    return (product_id, events_max, by, len(fields), len(changes), *fields, *changes, *expected_pairs)


def withdraw_product_args(
    *, product_id: int, events_max: int, by: str, expected_pairs: Sequence[str] = ()
) -> tuple[str | int, ...]:
    """Return ARGV of lua/withdraw_product.lua."""
    return (product_id, events_max, by, *expected_pairs)
