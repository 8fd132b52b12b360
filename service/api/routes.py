"""The table of API calls: one row per call."""

from typing import Final

from service.api import events, health, metrics, openapi, orders, pages, products, static_files
from service.api.call import Answer, Call
from service.api.request import MERGE_PATCH
from service.domain.errors.order_refusals import ORDER_REFUSALS
from service.domain.errors.refusals import (
    IdempotencyKeyReused,
    OrderArchived,
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
    EventsQuery,
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

PUBLIC: Final = ""
"""The scope of calls that need no API key: they tell nothing about the shop."""

ORDER_CREATED: Final = Answer(201, "Order", headers=("Location",))

CALLS: Final = (
    Call(
        "POST", "/orders", orders.place_order,
        scope="orders:write", answer=ORDER_CREATED, body=NewOrder, takes_idempotency_key=True,
        refuses=(*ORDER_REFUSALS, IdempotencyKeyReused, OrderCancelled, OrderExpired, OrderArchived),
    ),
    Call(
        "GET", "/products", products.list_products,
        scope="catalog:read", answer=Answer(200, "Products", headers=("Link",), is_cacheable=True), query=ProductsQuery,
    ),
    Call(
        "POST", "/products", products.add_product,
        scope="catalog:write", answer=Answer(201, "Product", headers=("Location",)), body=NewProduct,
        refuses=(ProductIdTaken,),
    ),
    Call(
        "GET", "/products/{id}", products.get_product,
        scope="catalog:read", answer=Answer(200, "Product", is_cacheable=True), not_found=ProductNotFound,
    ),
    Call(
        "PATCH", "/products/{id}", products.change_product,
        scope="catalog:write", answer=Answer(200, "Product", takes_if_match=True), not_found=ProductNotFound,
        body=ProductChange, media_types=MERGE_PATCH, refuses=(ProductHasChanged, SaleTimeEmpty),
    ),
    Call(
        "DELETE", "/products/{id}", products.withdraw_product,
        scope="catalog:write", answer=Answer(204, takes_if_match=True), not_found=ProductNotFound,
        refuses=(ProductHasChanged,),
    ),
    Call(
        "GET", "/products/{id}/stock", products.get_stock,
        scope="catalog:read", answer=Answer(200, "StockLevels", is_cacheable=True), not_found=ProductNotFound,
    ),
    Call(
        "POST", "/products/{id}/stock", products.change_stock,
        scope="stock:write", answer=Answer(200, "Product", takes_if_match=True), not_found=ProductNotFound,
        body=StockChange, body_with={"count": StockCount}, takes_idempotency_key=True,
        refuses=(*STOCK_REFUSALS, IdempotencyKeyReused),
    ),
    Call(
        "GET", "/orders", orders.list_orders,
        scope="orders:read", answer=Answer(200, "Orders", headers=("Link",)), query=OrdersQuery,
    ),
    Call(
        "GET", "/orders/{id}", orders.get_order,
        scope="orders:read", answer=Answer(200, "Order"), not_found=OrderNotFound,
        refuses=(OrderCancelled, OrderExpired, OrderArchived),
    ),
    Call(
        "DELETE", "/orders/{id}", orders.cancel_order,
        scope="orders:write", answer=Answer(204), not_found=OrderNotFound,
        refuses=(OrderCompleted, OrderExpired, OrderArchived),
    ),
    Call(
        "PATCH", "/orders/{id}", orders.extend_hold,
        scope="orders:write", answer=Answer(200, "Order"), not_found=OrderNotFound,
        body=HoldExtension, media_types=MERGE_PATCH,
        refuses=(OrderCompleted, OrderCancelled, OrderExpired, OrderArchived),
    ),
    Call(
        "POST", "/orders/{id}/returns", orders.return_products,
        scope="orders:write", answer=ORDER_CREATED, not_found=OrderNotFound,
        body=NewReturn, takes_idempotency_key=True,
        refuses=(*RETURN_REFUSALS, IdempotencyKeyReused, OrderCancelled, OrderExpired, OrderArchived),
    ),
    Call(
        "POST", "/orders/{id}/complete", orders.complete_order,
        scope="orders:write", answer=Answer(200, "Order"), not_found=OrderNotFound,
        refuses=(OrderCancelled, OrderExpired, OrderArchived),
    ),
    Call(
        "GET", "/livez", health.livez,
        scope=PUBLIC, answer=Answer(200, "Alive"), ignores_query=True,
    ),
    Call(
        "GET", "/readyz", health.readyz,
        scope=PUBLIC, answer=Answer(200, "Ready"), ignores_query=True,
    ),
    Call(
        "GET", "/openapi.json", openapi.describe_api,
        scope=PUBLIC, answer=Answer(200, "OpenAPI", is_cacheable=True), ignores_query=True,
    ),
    Call(
        "GET", "/events", events.listen_to_events,
        scope="ops:read", answer=Answer(200, media_type="text/event-stream"), query=EventsQuery,
    ),
    Call(
        "GET", "/metrics", metrics.show_metrics,
        scope="ops:read", answer=Answer(200, media_type="text/plain"), ignores_query=True,
    ),
    Call(
        "GET", "/", pages.redirect_to_docs,
        scope=PUBLIC, answer=Answer(307, headers=("Location",)), ignores_query=True,
    ),
    Call(
        "GET", "/board", pages.show_board,
        scope=PUBLIC, answer=Answer(200, media_type="text/html"), ignores_query=True,
    ),
    Call(
        "GET", "/docs", pages.show_docs,
        scope=PUBLIC, answer=Answer(200, media_type="text/html"), ignores_query=True,
    ),
    Call(
        "GET", "/docs/{file}", static_files.static_file,
        scope=PUBLIC, answer=Answer(200, media_type="text/javascript", is_cacheable=True), ignores_query=True,
        refuses=(PathNotFound,),
    ),
    Call(
        "GET", "/problems", pages.list_problems,
        scope=PUBLIC, answer=Answer(200, "ProblemTypes"), ignores_query=True,
    ),
    Call(
        "GET", "/problems/{name}", pages.explain_problem,
        scope=PUBLIC, answer=Answer(200, "ProblemType"), ignores_query=True, refuses=(PathNotFound,),
    ),
)  # fmt: skip
