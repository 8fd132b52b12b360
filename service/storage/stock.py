"""Stock changes: units that arrive, or are removed without an order."""

from collections.abc import Sequence
from typing import NamedTuple

from service.domain.limits import MAX_STOCK
from service.domain.product import Product
from service.domain.requests import StockChange
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.idempotency import REFUSAL_MS, SHORT_REFUSAL_MS, read_for_replay, stock_change_fingerprint
from service.storage.products import Products
from service.storage.records import PRODUCT_FIELDS, read_products
from service.storage.refusals import read_stock_refusal


class ChangedStock(NamedTuple):
    """A product after a stock change. `replayed`: an earlier request with the same Idempotency-Key made the change."""

    product: Product
    replayed: bool


class Stock:
    """The stock of the products of a shop. Each method also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, products: Products) -> None:
        self._client = client
        self._products = products

    async def change(self, product_id: int, change: StockChange, idempotency_key: str | None = None) -> ChangedStock:
        """Add units to the stock of a product, or remove units from it.

        Raise a StockChangeRefusal of STOCK_REFUSALS, or IdempotencyKeyReused.

        If an earlier request with this Idempotency-Key changed the stock, change nothing and return the product. If it
        was refused, raise the same refusal.
        """
        client = self._client
        reply = await client.run(
            "move_stock",
            (
                keys.product(client.shop, product_id),
                keys.events(client.shop),
                *(
                    (keys.refusals(client.shop), keys.idempotency(client.shop, idempotency_key))
                    if idempotency_key
                    else ()
                ),
            ),
            move_stock_args(
                product_id=product_id,
                change=change.change,
                reason=change.reason,
                max_stock=MAX_STOCK,
                idempotency_key=idempotency_key or "",
                fingerprint=stock_change_fingerprint(product_id, change) if idempotency_key else "",
                refusal_ms=REFUSAL_MS,
                short_refusal_ms=SHORT_REFUSAL_MS,
                refusals_max=client.refusals_max,
                events_max=client.events_max,
                fields=PRODUCT_FIELDS,
            ),
        )
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


def move_stock_args(
    *,
    product_id: int,
    change: int,
    reason: str,
    max_stock: int,
    idempotency_key: str,
    fingerprint: str,
    refusal_ms: int,
    short_refusal_ms: int,
    refusals_max: int,
    events_max: int,
    fields: Sequence[str],
) -> tuple[str | int, ...]:
    """Return ARGV of lua/move_stock.lua."""
    return (
        product_id,
        change,
        reason,
        max_stock,
        idempotency_key,
        fingerprint,
        refusal_ms,
        short_refusal_ms,
        refusals_max,
        events_max,
        *fields,
    )
