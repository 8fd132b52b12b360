"""Pending orders over HTTP: place them, and end them in each way."""

from typing import Any

from httpx2 import AsyncClient, Response

from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.shop import expire_all_due, place

HOLD = 900
"""Seconds: the hold time of a pending order that names no other."""


async def hold(client: AsyncClient, *lines: tuple[int, int], **fields: Any) -> Any:
    """Place a pending order and return it as the API shows it."""
    response = await place(client, *lines, status="pending", **fields)
    assert response.status_code == 201, response.text
    return response.json()


async def complete(client: AsyncClient, order_id: int) -> Response:
    return await client.post(f"/orders/{order_id}/complete")


async def cancel(client: AsyncClient, order_id: int) -> Response:
    return await client.delete(f"/orders/{order_id}")


async def end(client: AsyncClient, store: Store, clock: Clock, order_id: int, how: str) -> None:
    """End a pending order. `overdue`: its deadline has passed, but no sweeper has expired it yet."""
    match how:
        case "completed":
            assert (await complete(client, order_id)).status_code == 200
        case "cancelled":
            assert (await cancel(client, order_id)).status_code == 204
        case "overdue":
            clock.forward(HOLD)
        case "expired":
            clock.forward(HOLD)
            await expire_all_due(store)
