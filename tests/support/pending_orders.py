"""Pending orders over HTTP: place them, and end them in each way."""

from typing import Any

from httpx2 import AsyncClient, Response

from service.storage.store import Store
from tests.support.clock import Clock
from tests.support.shop import place, release_all_due

HOLD = 900
"""Seconds: what a pending order is held for if it does not say."""


async def hold(client: AsyncClient, *lines: tuple[int, int], **members: Any) -> Any:
    """Places a pending order and gives it."""
    response = await place(client, *lines, status="pending", **members)
    assert response.status_code == 201, response.text
    return response.json()


async def complete(client: AsyncClient, order_id: int) -> Response:
    return await client.post(f"/orders/{order_id}/complete")


async def cancel(client: AsyncClient, order_id: int) -> Response:
    return await client.delete(f"/orders/{order_id}")


async def end(client: AsyncClient, store: Store, clock: Clock, order_id: int, how: str) -> None:
    """Ends a pending order. `overdue`: its deadline has passed, and no sweeper has come round."""
    match how:
        case "completed":
            assert (await complete(client, order_id)).status_code == 200
        case "cancelled":
            assert (await cancel(client, order_id)).status_code == 204
        case "overdue":
            clock.forward(HOLD)
        case "expired":
            clock.forward(HOLD)
            await release_all_due(store)
