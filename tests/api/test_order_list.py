"""GET /orders: pages, links and gaps."""

from itertools import chain

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.shop import SHOP, add_product, http_client, make_store, new_order, pages, place

MAX_ID = 2**53 - 1


@pytest.mark.parametrize("query", ["", "?limit=1", "?before=1", "?before=0", f"?before={MAX_ID}", "?status=completed"])
async def test_list_of_a_shop_without_orders_is_empty(client: AsyncClient, query: str) -> None:
    await add_product(client, stock=0)
    await place(client, (1, 1))  # refused
    response = await client.get(f"/orders{query}")
    assert response.status_code == 200
    assert response.json() == []


async def test_list_shows_the_placed_orders_highest_id_first(client: AsyncClient) -> None:
    await add_product(client)
    orders = [(await place(client, (1, quantity))).json() for quantity in (1, 2, 3)]
    response = await client.get("/orders")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == orders[::-1]
    assert "link" not in response.headers


@pytest.mark.parametrize("path", ["/orders?", "/orders/?", "/orders?status=completed&"])
@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 1000])
async def test_links_lead_through_all_orders(client: AsyncClient, path: str, limit: int) -> None:
    await add_product(client, stock=1000)
    ids = [(await place(client, (1, 1))).json()["id"] for _ in range(7)]
    found = await pages(client, f"{path}limit={limit}")
    assert list(chain(*found)) == ids[::-1]
    assert all(len(page) == limit for page in found[:-1])


async def test_page_has_a_hundred_orders_by_default(client: AsyncClient, store: Store) -> None:
    await add_product(client, stock=1000)
    for _ in range(205):
        await store.orders.place(new_order((1, 1)))
    assert [len(page) for page in await pages(client, "/orders")] == [100, 100, 5]
    assert [len(page) for page in await pages(client, "/orders?limit=1000")] == [205]


async def test_link_to_the_next_page_keeps_the_filter(client: AsyncClient) -> None:
    await add_product(client)
    for _ in range(3):
        await place(client, (1, 1))
    response = await client.get("/orders?status=completed&limit=2")
    assert response.headers["link"] == '</orders?status=completed&limit=2&before=2>; rel="next"'


async def test_page_has_orders_below_the_given_id_even_if_no_order_has_it(client: AsyncClient) -> None:
    await add_product(client)
    for _ in range(3):
        await place(client, (1, 1))
    assert await pages(client, "/orders?before=3") == [[2, 1]]
    assert await pages(client, "/orders?before=4") == [[3, 2, 1]]
    assert await pages(client, f"/orders?before={MAX_ID}") == [[3, 2, 1]]
    assert await pages(client, "/orders?before=1") == [[]]


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_list_skips_ids_without_an_order(client: AsyncClient, redis: CommandSender, limit: int) -> None:
    await add_product(client, stock=1000)
    placed = []
    for _ in range(3):  # each worker reserves a block of ids and uses only two of them
        async with http_client(make_store(redis)) as worker:
            placed += [(await place(worker, (1, 1))).json()["id"] for _ in range(2)]
    assert placed[-1] - placed[0] > len(placed)
    assert list(chain(*await pages(client, f"/orders?limit={limit}"))) == placed[::-1]


async def test_list_shows_orders_on_both_sides_of_a_large_gap_of_ids(client: AsyncClient, redis: CommandSender) -> None:
    await add_product(client)
    first = (await place(client, (1, 1))).json()["id"]
    await redis.send("INCRBY", f"{{{SHOP}}}:ids:orders", 12_000)
    async with http_client(make_store(redis)) as worker:
        last = (await place(worker, (1, 1))).json()["id"]
    assert list(chain(*await pages(client, "/orders"))) == [last, first]
