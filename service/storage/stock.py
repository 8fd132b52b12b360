"""Stock moves: units that arrive, or are taken away without an order."""

from collections.abc import Sequence
from typing import NamedTuple

from service.domain.errors.refusals import IdempotencyKeyReused
from service.domain.limits import MAX_STOCK
from service.domain.product import Product
from service.domain.requests import StockMove
from service.storage import keys
from service.storage.client import RedisClient
from service.storage.idempotency import REFUSAL_MS, move_fingerprint, read_for_replay
from service.storage.products import Products
from service.storage.records import PRODUCT_FIELDS, read_products
from service.storage.refusals import read_stock_refusal


class Moved(NamedTuple):
    """A product after a stock move. `replayed`: the move was made before, by a request with the same key."""

    product: Product
    replayed: bool


class Stock:
    """The stock of the products of a shop. Each verb also raises what RedisClient raises."""

    def __init__(self, client: RedisClient, products: Products) -> None:
        self._client = client
        self._products = products

    async def move(self, product_id: int, move: StockMove, idempotency_key: str | None = None) -> Moved:
        """Add units to the stock of a product, or take units from it.

        Raise a StockRefused of STOCK_REFUSALS, or IdempotencyKeyReused. A key that made a move before moves nothing
        again; a key that was refused before is refused again.
        """
        client = self._client
        reply = await client.run(
            "move_stock",
            (
                keys.product(client.shop, product_id),
                keys.events(client.shop),
                *((keys.idempotency(client.shop, idempotency_key),) if idempotency_key else ()),
            ),
            move_stock_args(
                product_id=product_id,
                change=move.change,
                reason=move.reason,
                max_stock=MAX_STOCK,
                idempotency_key=idempotency_key or "",
                fingerprint=move_fingerprint(product_id, move) if idempotency_key else "",
                refusal_ms=REFUSAL_MS,
                events_max=client.events_max,
                fields=PRODUCT_FIELDS,
            ),
        )
        match reply:
            case ["moved", *row]:
                [product] = read_products([product_id], [row])
                assert product is not None
                return Moved(product, replayed=False)
            case ["replayed", _]:
                [product] = await read_for_replay(self._products.read_many([product_id], withdrawn_too=True))
                assert product is not None
                return Moved(product, replayed=True)
            case ["reused"]:
                raise IdempotencyKeyReused
            case ["refused", text]:
                raise read_stock_refusal(product_id, move, text.split("\n"), replayed=True)
            case _:
                raise read_stock_refusal(product_id, move, reply, replayed=False)


def move_stock_args(
    *,
    product_id: int,
    change: int,
    reason: str,
    max_stock: int,
    idempotency_key: str,
    fingerprint: str,
    refusal_ms: int,
    events_max: int,
    fields: Sequence[str],
) -> tuple[str | int, ...]:
    """Return ARGV of lua/move_stock.lua."""
    return (product_id, change, reason, max_stock, idempotency_key, fingerprint, refusal_ms, events_max, *fields)
