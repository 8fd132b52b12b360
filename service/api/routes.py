"""The table of API calls: one row per call."""

from typing import Final

from service.api import health, metrics, orders, pages, products
from service.api.call import Call
from service.api.request import MERGE_PATCH
from service.domain.errors.order_refusals import ORDER_REFUSALS
from service.domain.errors.refusals import (
    IdempotencyKeyReused,
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderNotFound,
    ProductHasChanged,
    ProductIdTaken,
    ProductNotFound,
    SaleTimeEmpty,
)
from service.domain.errors.request import PathNotFound
from service.domain.errors.return_refusals import RETURN_REFUSALS
from service.domain.errors.stock_refusals import STOCK_REFUSALS
from service.domain.requests import (
    HoldExtension,
    NewOrder,
    NewProduct,
    NewReturn,
    OrdersQuery,
    ProductChange,
    ProductsQuery,
    StockChange,
    StockCount,
)

# The router takes the first row that fits a path with a parameter: the busiest rows come first.
CALLS: Final = (
    Call(
        "POST", "/orders", orders.place_order, body=NewOrder, takes_idempotency_key=True,
        refuses=(*ORDER_REFUSALS, IdempotencyKeyReused, OrderCancelled, OrderExpired),
    ),
    Call("GET", "/products", products.list_products, query=ProductsQuery),
    Call("POST", "/products", products.add_product, body=NewProduct, refuses=(ProductIdTaken,)),
    Call("GET", "/products/{id}", products.get_product, not_found=ProductNotFound),
    Call(
        "PATCH", "/products/{id}", products.change_product, not_found=ProductNotFound,
        body=ProductChange, media_types=MERGE_PATCH, refuses=(ProductHasChanged, SaleTimeEmpty),
    ),
    Call(
        "DELETE", "/products/{id}", products.withdraw_product, not_found=ProductNotFound,
        refuses=(ProductHasChanged,),
    ),
    Call("GET", "/products/{id}/stock", products.get_stock, not_found=ProductNotFound),
    Call(
        "POST", "/products/{id}/stock", products.change_stock, not_found=ProductNotFound,
        body=StockChange, body_with={"count": StockCount}, takes_idempotency_key=True,
        refuses=(*STOCK_REFUSALS, IdempotencyKeyReused),
    ),
    Call("GET", "/orders", orders.list_orders, query=OrdersQuery),
    Call(
        "GET", "/orders/{id}", orders.get_order, not_found=OrderNotFound, refuses=(OrderCancelled, OrderExpired),
    ),
    Call(
        "DELETE", "/orders/{id}", orders.cancel_order, not_found=OrderNotFound,
        refuses=(OrderCompleted, OrderExpired),
    ),
    Call(
        "PATCH", "/orders/{id}", orders.extend_hold, not_found=OrderNotFound,
        body=HoldExtension, media_types=MERGE_PATCH, refuses=(OrderCompleted, OrderCancelled, OrderExpired),
    ),
    Call(
        "POST", "/orders/{id}/returns", orders.return_products, not_found=OrderNotFound,
        body=NewReturn, takes_idempotency_key=True,
        refuses=(*RETURN_REFUSALS, IdempotencyKeyReused, OrderCancelled, OrderExpired),
    ),
    Call(
        "POST", "/orders/{id}/complete", orders.complete_order, not_found=OrderNotFound,
        refuses=(OrderCancelled, OrderExpired),
    ),
    Call("GET", "/livez", health.livez, ignores_query=True),
    Call("GET", "/readyz", health.readyz, ignores_query=True),
    Call("GET", "/metrics", metrics.show_metrics, ignores_query=True),
    Call("GET", "/problems/{name}", pages.explain_problem, ignores_query=True, refuses=(PathNotFound,)),
)  # fmt: skip
