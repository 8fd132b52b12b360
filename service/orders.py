"""The calls under /orders."""

from starlette.responses import Response

from service.errors import OrderNotFound
from service.http import (
    REPLAYED,
    JsonResponse,
    Request,
    page_response,
    read_body,
    read_id,
    read_idempotency_key,
    read_query,
    share_page,
)
from service.models import NewOrder, OrdersQuery


async def list_orders(request: Request) -> Response:
    """GET /orders: a page, newest first."""
    return await share_page(request, _load_page)


async def _load_page(request: Request) -> Response:
    query = read_query(request, OrdersQuery)
    orders, before = await request.state["store"].list_orders(query)
    return page_response(request, [order.json() for order in orders], {} if before is None else {"before": before})


async def place_order(request: Request) -> Response:
    """POST /orders: takes the stock of all lines, or of none."""
    key = read_idempotency_key(request)
    order, replayed = await request.state["store"].place_order(await read_body(request, NewOrder), key)
    headers = [(b"location", f"/orders/{order.id}".encode())]
    if replayed:
        headers.append(REPLAYED)
    return JsonResponse(order.json(), 201, headers)


async def get_order(request: Request) -> Response:
    """GET /orders/{id}."""
    order = await request.state["store"].get_order(_order_id(request))
    return JsonResponse(order.json())


async def complete_order(request: Request) -> Response:
    """POST /orders/{id}/complete: what a pending order holds is sold. Takes no body; one is ignored."""
    order = await request.state["store"].complete_order(_order_id(request))
    return JsonResponse(order.json())


async def cancel_order(request: Request) -> Response:
    """DELETE /orders/{id}: what a pending order holds is back on sale."""
    await request.state["store"].cancel_order(_order_id(request))
    return Response(status_code=204)


def _order_id(request: Request) -> int:
    order_id = read_id(request)
    if order_id is None:
        raise OrderNotFound(request.path_params["id"])
    return order_id
