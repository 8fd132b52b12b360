"""What the live board shows of the shop: the numbers of products, and the holds that end next."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from service.domain.money import Cents, parse_cents
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.replies import read_scores

_FIELDS: Final = ("name", "price", "stock", "held", "sold", "withdrawn")


class ProductNumbers(NamedTuple):
    """A product on sale with its units."""

    id: int
    name: str
    price: Cents
    stock: int
    held: int
    sold: int


class NextHolds(NamedTuple):
    """`total`: the number of all pending orders. `next`: those whose hold ends next: order id and deadline."""

    total: int
    next: list[tuple[int, Milliseconds]]


class Board:
    """Reads what the live board shows. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def product_ids(self, after: int, limit: int) -> list[int]:
        """Return the ids of products on sale above `after`, lowest first."""
        index = keys.products(self._client.shop)
        ids = await self._client.send(
            "ZRANGEBYSCORE", index, f"({after}", "+inf", "LIMIT", 0, limit, safe_to_repeat=True
        )
        return [int(product_id) for product_id in ids]

    async def count_products(self) -> int:
        """Return the number of products on sale."""
        return int(await self._client.send("ZCARD", keys.products(self._client.shop), safe_to_repeat=True))

    async def products(self, ids: Sequence[int]) -> list[ProductNumbers | None]:
        """Return the numbers of these products. None: it is not on sale."""
        shop = self._client.shop
        rows = await self._client.read_hashes([keys.product(shop, product_id) for product_id in ids], _FIELDS)
        return [
            None
            if name is None or withdrawn == "1"
            else ProductNumbers(product_id, name, parse_cents(price), int(stock), int(held), int(sold))
            for product_id, (name, price, stock, held, sold, withdrawn) in zip(ids, rows, strict=True)
        ]

    async def next_holds(self, limit: int) -> NextHolds:
        """Return the holds that end next, at most `limit` of them."""
        index = keys.holds(self._client.shop)
        count = await self._client.send("ZCARD", index, safe_to_repeat=True)
        rows = await self._client.send(
            "ZRANGEBYSCORE", index, "-inf", "+inf", "WITHSCORES", "LIMIT", 0, limit, safe_to_repeat=True
        )
        holds = [(int(order_id), Milliseconds(int(float(deadline)))) for order_id, deadline in read_scores(rows)]
        return NextHolds(count, holds)
