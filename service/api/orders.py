"""The API calls under /orders."""

from starlette.responses import Response

from service.api.problems import problem_for
from service.api.request import Request, key_name, store_of
from service.api.responses import created, no_content, ok, page_response, share_page
from service.domain.errors.refusals import Refusal
from service.domain.requests import HoldExtension, NewOrder, NewReturn, OrdersQuery


async def list_orders(request: Request, query: OrdersQuery) -> Response:
    """Return one page of orders, highest id first. (GET /orders)"""
    return await share_page(request, lambda: _load_page(request, query))


async def _load_page(request: Request, query: OrdersQuery) -> Response:
    orders, before = await store_of(request).orders.list(query)
    return page_response(request, [order.json for order in orders], {} if before is None else {"before": before})


async def place_order(request: Request, new: NewOrder) -> Response:
    """Take the stock of all lines, or refuse the whole order. (POST /orders)"""
    try:
        order, replayed = await store_of(request).orders.place(new, request.idempotency_key, key_name(request))
    except Refusal as refusal:
        request.scope["state"]["refusal_log"].note(request.scope, new, refusal)
        return problem_for(refusal, request.scope)  # not raised once more: in a flash sale nearly all orders end here
    return created(request, f"/orders/{order.id}", order.json(), replayed=replayed)


async def get_order(request: Request, order_id: int) -> Response:
    """Return one order. (GET /orders/{id})"""
    order = await store_of(request).orders.get(order_id)
    return ok(order.json())


async def extend_hold(request: Request, order_id: int, extension: HoldExtension) -> Response:
    """Let the hold of a pending order end later, or earlier. (PATCH /orders/{id})"""
    order = await store_of(request).holds.extend(order_id, extension, key_name(request))
    return ok(order.json())


async def complete_order(request: Request, order_id: int) -> Response:
    """Sell what a pending order holds. A body is ignored. (POST /orders/{id}/complete)"""
    order = await store_of(request).holds.complete(order_id, key_name(request))
    return ok(order.json())


async def cancel_order(request: Request, order_id: int) -> Response:
    """Release what a pending order holds. (DELETE /orders/{id})"""
    await store_of(request).holds.cancel(order_id, key_name(request))
    return no_content()


async def return_products(request: Request, order_id: int, new: NewReturn) -> Response:
    """Take back units of a completed order, or refuse the whole return. (POST /orders/{id}/returns)"""
    order, replayed = await store_of(request).returns.make(order_id, new, request.idempotency_key, key_name(request))
    return created(request, f"/orders/{order.id}", order.json(), replayed=replayed)
