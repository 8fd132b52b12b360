"""Uses a client that openapi-python-client has generated. Its folder is on the path; the argument is the address."""

import sys

from generated import Client  # type: ignore[import-not-found]
from generated.api.orders import place_order  # type: ignore[import-not-found]
from generated.api.products import add_product  # type: ignore[import-not-found]
from generated.models import (  # type: ignore[import-not-found]
    InsufficientStockProblem,
    NewOrder,
    NewOrderLine,
    NewProduct,
    Order,
    Product,
)

client = Client(base_url=sys.argv[1])
mug = add_product.sync(client=client, body=NewProduct(name="Mug", description="", price=19.99, stock=5))
assert isinstance(mug, Product), mug
order = place_order.sync(
    client=client,
    body=NewOrder(products=[NewOrderLine(product_id=mug.id, quantity=2)]),
    idempotency_key="from-python",
)
assert isinstance(order, Order), order
assert (order.total_price, order.status) == (39.98, "completed"), order
refused = place_order.sync(client=client, body=NewOrder(products=[NewOrderLine(product_id=mug.id, quantity=9)]))
assert isinstance(refused, InsufficientStockProblem), refused
[line] = refused.errors
print(f"{line.product_id}: {line.requested} requested, {line.available} available")
