"""An export has all products or orders, as the API shows them."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from httpx2 import AsyncClient

from service.domain.order import Order, OrderLine
from service.domain.requests import NewReturn
from service.ops.export import ORDER_COLUMNS, Content
from service.ops.import_report import ImportReport
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.catalogue import export_csv, export_lines, import_file, products_on_sale, write_file
from tests.support.clock import Clock
from tests.support.shop import add_mugs, add_product, http_client, make_store, new_order, pages, place


async def test_exported_products_are_the_same_after_import_into_another_shop(
    store: Store, redis: CommandSender, client: AsyncClient, tmp_path: Path
) -> None:
    unusual_texts = {"name": 'Löffel "é"\u2028\U0001f944', "description": 'a\n\tb\\ "c" \x00,;'}
    for fields in ({}, unusual_texts, {"price": 0.07, "stock": 0}, {"price": 999_999_999.99}, {"id": 2**53 - 1}):
        await add_product(client, **fields)
    withdrawn = await add_product(client)
    await store.products.withdraw(withdrawn)
    content = "".join(f"{line}\n" for line in await export_lines(store, "products"))
    other = make_store(redis, shop="other")
    assert await import_file(other, write_file(tmp_path, content)) == ImportReport(added=5)
    async with http_client(other) as other_client:
        assert (await other_client.get("/products")).text == (await client.get("/products")).text


async def test_an_import_of_an_exported_csv_file_changes_nothing(
    store: Store, redis: CommandSender, client: AsyncClient, tmp_path: Path
) -> None:
    for fields in (
        {"name": 'Mug, "big"', "description": "a\r\nb\n\rc;\t"},
        {"name": " Löffel \U0001f944", "description": "\x00 '=1+1"},
        {"price": 0.07, "stock": 0},
        {"price": 1000, "id": 2**53 - 1},
    ):
        await add_product(client, **fields)
    path = write_file(tmp_path, await export_csv(store, "products"), "p.csv")
    assert await import_file(store, path) == ImportReport(present=4)
    other = make_store(redis, shop="other")
    assert await import_file(other, path) == ImportReport(added=4)
    assert await products_on_sale(other) == await products_on_sale(store)


async def test_products_are_exported_as_csv(store: Store) -> None:
    await add_mugs(store, id=1, stock=10, description='Holds "coffee",\nand tea.')
    assert await export_csv(store, "products") == (
        "id,name,description,price,stock,limit_per_customer,on_sale_from,on_sale_until\r\n"
        '1,Mug,"Holds ""coffee"",\nand tea.",19.99,10,,,\r\n'
    )


async def test_orders_are_exported_as_csv_with_one_line_per_product(redis: CommandSender) -> None:
    clock = Clock(1_000_000)
    store = make_store(redis, clock=clock)
    await add_mugs(store, id=1)
    await add_mugs(store, id=2, price=0.07)
    await store.orders.place(new_order((1, 2), (2, 3), reference="A,1", customer="Löffel"))
    await store.returns.make(1, NewReturn.model_validate({"products": [{"product_id": 2, "quantity": 1}]}))
    for _ in range(2):
        await store.orders.place(new_order((2, 1), status="pending", hold_seconds=60))
    clock.forward(1)
    await store.holds.complete(3)
    assert (await export_csv(store, "orders")).splitlines() == [
        "id,status,created_at,expires_at,total_price,product_id,quantity,price,"
        "completed_at,reference,customer,returned,refunded",
        "3,completed,1970-01-01T00:16:40.000Z,,0.07,2,1,0.07,1970-01-01T00:16:41.000Z,,,,",
        "2,pending,1970-01-01T00:16:40.000Z,1970-01-01T00:17:40.000Z,0.07,2,1,0.07,,,,,",
        '1,completed,1970-01-01T00:16:40.000Z,,40.19,1,2,19.99,,"A,1",Löffel,0,0.07',
        '1,completed,1970-01-01T00:16:40.000Z,,40.19,2,3,0.07,,"A,1",Löffel,1,0.07',
    ]


def test_each_field_of_an_order_has_a_column() -> None:
    assert set(ORDER_COLUMNS) == {*Order._fields, *OrderLine._fields} - {"lines"}


async def test_exported_products_equal_the_responses_of_the_api_in_order_of_id(
    store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.export.MAX_PAGE", 3)
    for product_id in (9, 4, 1, 8, 2, 7, 5):
        await add_product(client, id=product_id)
    await store.products.withdraw(4)
    lines = await export_lines(store, "products")
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 5, 7, 8, 9]
    assert lines == [(await client.get(f"/products/{json.loads(line)['id']}")).text.rstrip() for line in lines]


async def test_exported_orders_equal_the_responses_of_the_api_highest_id_first(
    store: Store, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ops.export.MAX_PAGE", 3)
    mugs, pots = await add_product(client, stock=1000), await add_product(client, stock=1000, price=0.07)
    placed = []
    for number in range(11):
        fields = {"status": "pending"} if number % 3 == 0 else {}
        placed.append((await place(client, (mugs, 1), (pots, 1 + number), **fields)).json())
    cancelled, completed = placed[6], placed[3]
    await client.delete(f"/orders/{cancelled['id']}")
    await client.post(f"/orders/{completed['id']}/complete")
    expected = [order["id"] for order in reversed(placed) if order != cancelled]
    lines = await export_lines(store, "orders")
    assert [json.loads(line)["id"] for line in lines] == expected
    assert lines == [(await client.get(f"/orders/{order_id}")).text.rstrip() for order_id in expected]
    assert [page for page in await pages(client, "/orders?limit=3") if page] == _groups_of_three(expected)


def _groups_of_three(ids: list[int]) -> Iterable[list[int]]:
    return [ids[start : start + 3] for start in range(0, len(ids), 3)]


async def test_orders_before_and_after_many_unused_ids_are_exported(store: Store, redis: CommandSender) -> None:
    await add_mugs(store, id=1)
    orders = []
    for _ in range(2):
        orders.append((await make_store(redis).orders.place(new_order((1, 1)))).order.id)
        await redis.send("INCRBY", "{test}:ids:orders", 12_000)
    assert [json.loads(line)["id"] for line in await export_lines(store, "orders")] == orders[::-1]


@pytest.mark.parametrize("content", ["products", "orders"])
async def test_the_export_of_an_empty_shop_is_empty(store: Store, content: Content) -> None:
    assert await export_lines(store, content) == []
    assert (await export_csv(store, content)).count("\r\n") == 1
