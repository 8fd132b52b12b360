"""The stock: its numbers, and its changes: units that arrive, are removed without an order, or are counted."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from service.domain.errors.refusals import ProductNotFound
from service.domain.errors.stock_refusals import STOCK_REFUSALS
from service.domain.limits import MAX_STOCK
from service.domain.product import Product
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.idempotency import REFUSAL_MS, SHORT_REFUSAL_MS, read_for_replay, stock_change_fingerprint
from service.storage.partition import Partition
from service.storage.products import Products
from service.storage.records import PRODUCT_FIELDS, read_products
from service.storage.refusals import read_stock_refusal

if TYPE_CHECKING:
    from service.domain.requests import StockChange, StockCount

_REFUSED: Final = frozenset(refusal.reply_word for refusal in STOCK_REFUSALS)
"""First words of the replies that an Idempotency-Key remembers."""


class ChangedStock(NamedTuple):
    """A product after a stock change. `replayed`: an earlier request with the same Idempotency-Key made the change."""

    product: Product
    replayed: bool


class StockLevels(NamedTuple):
    """The units of a product: received = stock + held + sold.

    `received`: units that arrived, less those that left without an order. `written_off`: units that were returned and
    not put into stock again; these are not among the received ones any more.
    """

    stock: int
    held: int
    sold: int
    received: int
    written_off: int


class Stock:
    """The stock of the products of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, products: Products, partition: Partition | None = None) -> None:
        """`partition`: of a shop with several; None: the shop has no partitions."""
        self._client = client
        self._partition = partition
        self._products = products

    async def levels(self, product_id: int) -> StockLevels:
        """Return the units of a product on sale, all at one moment. Raise ProductNotFound."""
        self._client.admit()
        fields = (*StockLevels._fields, "withdrawn")
        [row] = await self._client.read_hashes([keys.product(self._client.shop, product_id)], fields)
        *numbers, withdrawn = row
        if numbers[0] is None or withdrawn == "1":
            raise ProductNotFound(str(product_id))
        return StockLevels(*[int(number or 0) for number in numbers])

    async def change(
        self,
        product_id: int,
        change: "StockChange | StockCount",
        idempotency_key: str | None = None,
        expected_stocks: Collection[int] | None = None,
        by: str = "",
    ) -> ChangedStock:
        """Add units to the stock of a product, remove units from it, or set it to the units that were counted.

        `expected_stocks`: the numbers of units that may be in stock before; None: any.
        `by`: the name of the API key of the request. Each has Idempotency-Keys of its own.

        Raise a StockChangeRefusal of STOCK_REFUSALS, or IdempotencyKeyReused.

        If an earlier request with this Idempotency-Key changed the stock, change nothing and return the product. If it
        was refused, raise the same refusal.
        """
        fingerprint = stock_change_fingerprint(product_id, change) if idempotency_key else ""
        if self._partition is None:
            reply = await self._move(product_id, change, idempotency_key, fingerprint, expected_stocks, by, REFUSAL_MS)
        else:
            reply = await self._move_everywhere(product_id, change, idempotency_key, fingerprint, expected_stocks, by)
        match reply:
            case ["moved", *row]:
                [product] = read_products([product_id], [row])
                assert product is not None
                return ChangedStock(product, replayed=False)
            case ["replayed", _]:
                [product] = await read_for_replay(self._products.read_many([product_id], include_withdrawn=True))
                assert product is not None
                return ChangedStock(product, replayed=True)
            case _:
                raise read_stock_refusal(product_id, change, reply)

    async def _move(
        self,
        product_id: int,
        change: "StockChange | StockCount",
        idempotency_key: str | None,
        fingerprint: str,
        expected_stocks: Collection[int] | None,
        by: str,
        refusal_ms: int,
    ) -> Sequence[str]:
        """Return the reply of lua/move_stock.lua."""
        client = self._client
        outcome_keys = (self._outcome_key(idempotency_key, by),) if idempotency_key else ()
        reply: Sequence[str] = await client.run(
            "move_stock",
            (
                keys.product(client.shop, product_id),
                keys.events(client.shop),
                *((keys.refusals(client.shop), *outcome_keys) if outcome_keys else ()),
            ),
            move_stock_args(
                product_id=product_id,
                change=change.change if change.count is None else "",
                count="" if change.count is None else change.count,
                expected_stocks="" if expected_stocks is None else f" {' '.join(map(str, expected_stocks))} ",
                reason=change.reason,
                max_stock=MAX_STOCK,
                idempotency_key=idempotency_key or "",
                fingerprint=fingerprint,
                refusal_ms=refusal_ms,
                short_refusal_ms=SHORT_REFUSAL_MS,
                refusals_max=client.refusals_max,
                events_max=client.events_max,
                by=by,
                fields=PRODUCT_FIELDS,
            ),
        )
        return reply

    def _outcome_key(self, idempotency_key: str, by: str) -> str:
        return keys.idempotency(self._client.shop, idempotency_key, by=by)

    async def _move_everywhere(
        self,
        product_id: int,
        change: "StockChange | StockCount",
        idempotency_key: str | None,
        fingerprint: str,
        expected_stocks: Collection[int] | None,
        by: str,
    ) -> Sequence[str]:
        """Change the stock of a shop with several partitions: the change is made here, with the units of all.

        Return a reply of lua/move_stock.lua.
        """
        from service.domain.requests import StockChange  # imported late: most commands do without pydantic

        partition = self._partition
        assert partition is not None
        tries = partition.begin()
        while True:
            looking = partition.settle_stock(product_id, change, expected_stocks)
            # An earlier request with this key may have made the change: only a script can say so.
            units = await (read_for_replay(looking) if idempotency_key else looking)
            if not isinstance(units, int):
                reply = units
                break
            local = StockChange.model_construct(change=units, reason=change.reason)
            reply = await self._move(product_id, local, idempotency_key, fingerprint, None, by, 0)
            if reply[0] == "short":
                tries.check_deadline()
                await partition.gather({product_id: -units}, {product_id: int(reply[1])}, tries)
            elif reply[0] != "absent" or await partition.is_current([product_id], tries):
                break
        if idempotency_key and reply[0] in _REFUSED:
            outcome_key = self._outcome_key(idempotency_key, by)
            remembered = await read_for_replay(partition.remember(outcome_key, fingerprint, "\n".join(reply)))
            return reply if remembered[0] == "remembered" else remembered
        return reply


def move_stock_args(
    *,
    product_id: int,
    change: int | str,
    count: int | str,
    expected_stocks: str,
    reason: str,
    max_stock: int,
    idempotency_key: str,
    fingerprint: str,
    refusal_ms: int,
    short_refusal_ms: int,
    refusals_max: int,
    events_max: int,
    by: str,
    fields: Sequence[str],
) -> tuple[str | int, ...]:
    """Return ARGV of lua/move_stock.lua."""
    return (
        product_id,
        change,
        count,
        expected_stocks,
        reason,
        max_stock,
        idempotency_key,
        fingerprint,
        refusal_ms,
        short_refusal_ms,
        refusals_max,
        events_max,
        by,
        *fields,
    )
