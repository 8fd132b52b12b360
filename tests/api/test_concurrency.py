"""Many clients at the same time over several workers, on the real engine: nothing is oversold, lost or done twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack

import pytest
from httpx2 import AsyncClient, Response

from service.storage import keys
from service.storage.connection import MultiplexedConnection
from service.storage.order_ids import ID_BLOCK_SIZE
from tests.support.balance import assert_balanced, cents, parse_whole
from tests.support.problems import assert_problem
from tests.support.shop import SHOP, add_product, http_client, make_store, mug, pages, place, stock_of

WORKERS = 4


@pytest.fixture
async def workers(engine_url: str, engine: MultiplexedConnection) -> AsyncIterator[list[AsyncClient]]:
    """Return a client per worker. Each worker has its own application, Store and connection, all on the same engine."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(WORKERS):
            worker_connection = await stack.enter_async_context(
                MultiplexedConnection(engine_url, timeout=10, max_in_flight=100_000)
            )
            clients.append(await stack.enter_async_context(http_client(make_store(worker_connection))))
        yield clients


async def send_together(requests: Iterable[Awaitable[Response]]) -> list[Response]:
    return await asyncio.gather(*requests)


def count_statuses(responses: Iterable[Response]) -> Counter[int]:
    return Counter(response.status_code for response in responses)


async def test_two_hundred_clients_buy_exactly_the_fifty_units_in_stock(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=50)
    responses = await send_together(place(workers[i % WORKERS], (mugs, 1)) for i in range(200))
    assert count_statuses(responses) == {201: 50, 409: 150}
    for response in responses:
        if response.status_code == 409:
            problem = assert_problem(response, 409, "insufficient-stock")
            assert [(line["requested"], line["available"]) for line in problem["errors"]] == [(1, 0)]
    placed = [response.json()["id"] for response in responses if response.status_code == 201]
    assert len(set(placed)) == 50
    assert await stock_of(workers[0], mugs) == 0
    contents = await assert_balanced(engine)
    assert contents.products[mugs]["sold"] == "50"
    assert contents.orders.keys() == set(placed)


async def test_orders_with_the_same_products_in_opposite_sequence_do_not_block_each_other(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    products = [await add_product(workers[0], stock=1000) for _ in range(5)]
    forward = [(product_id, position + 1) for position, product_id in enumerate(products)]
    orders = [forward, forward[::-1], forward[1:3], forward[2:0:-1]]
    responses = await send_together(place(workers[i // 4 % WORKERS], *orders[i % 4]) for i in range(200))
    assert count_statuses(responses) == {201: 200}
    assert [await stock_of(workers[0], product_id) for product_id in products] == [900, 600, 400, 600, 500]
    await assert_balanced(engine)


async def test_two_lines_with_the_same_product_cannot_sell_more_than_the_stock(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=10)
    refused = await send_together(place(client, (mugs, 6), (mugs, 6)) for client in workers * 10)
    for response in refused:
        problem = assert_problem(response, 409, "insufficient-stock")
        assert [(line["requested"], line["available"]) for line in problem["errors"]] == [(12, 10)]
    responses = await send_together(place(client, (mugs, 3), (mugs, 2)) for client in workers * 10)
    assert count_statuses(responses) == {201: 2, 409: 38}
    assert (await assert_balanced(engine)).products[mugs]["sold"] == "10"


async def test_concurrent_orders_of_several_products_take_all_lines_or_none(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    plenty, scarce = await add_product(workers[0], stock=1000), await add_product(workers[0], stock=17)
    responses = await send_together(
        place(workers[i % WORKERS], *(((plenty, 3), (scarce, 2)) if i % 2 else ((scarce, 2), (plenty, 3))))
        for i in range(100)
    )
    assert count_statuses(responses) == {201: 8, 409: 92}
    contents = await assert_balanced(engine)
    assert (contents.products[plenty]["stock"], contents.products[scarce]["stock"]) == (str(1000 - 8 * 3), "1")


async def test_fifty_concurrent_requests_with_the_same_key_place_one_order(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=100)
    responses = await send_together(place(workers[i % WORKERS], (mugs, 2), key="k-1") for i in range(50))
    assert count_statuses(responses) == {201: 50}
    assert len({response.content for response in responses}) == 1
    assert len({response.headers["location"] for response in responses}) == 1
    assert Counter(response.headers.get("idempotent-replayed") for response in responses) == {None: 1, "true": 49}
    contents = await assert_balanced(engine)
    assert contents.orders.keys() == {responses[0].json()["id"]}
    assert (contents.products[mugs]["stock"], contents.products[mugs]["sold"]) == ("98", "2")


async def test_concurrent_requests_with_the_same_key_get_the_same_refusal(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=1)
    responses = await send_together(place(workers[i % WORKERS], (mugs, 2), key="k-1") for i in range(50))
    problems = [assert_problem(response, 409, "insufficient-stock") for response in responses]
    assert all(problem["errors"] == problems[0]["errors"] for problem in problems)
    assert Counter(response.headers.get("idempotent-replayed") for response in responses) == {None: 1, "true": 49}
    assert (await assert_balanced(engine)).orders == {}


async def test_only_one_of_different_concurrent_orders_with_the_same_key_is_placed(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=1000)
    # Each worker gets different bodies at the same time, and each body is sent to every worker.
    quantities = [1 + i // WORKERS % 10 for i in range(80)]
    responses = await send_together(
        place(workers[i % WORKERS], (mugs, quantity), key="k-1") for i, quantity in enumerate(quantities)
    )
    assert count_statuses(responses) == {201: 8, 422: 72}
    placed_quantities = {
        quantity for quantity, response in zip(quantities, responses, strict=True) if response.status_code == 201
    }
    assert len(placed_quantities) == 1
    for response in responses:
        if response.status_code == 422:
            assert_problem(response, 422, "idempotency-key-reused")
    assert len({response.content for response in responses if response.status_code == 201}) == 1
    contents = await assert_balanced(engine)
    assert len(contents.orders) == 1
    assert contents.products[mugs]["sold"] == str(*placed_quantities)


async def test_only_one_of_concurrent_products_with_the_same_id_is_added(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    responses = await send_together(
        workers[i % WORKERS].post("/products", json=mug(id=7, name=f"Mug {i}", stock=i)) for i in range(40)
    )
    assert count_statuses(responses) == {201: 1, 409: 39}
    [added] = [response.json() for response in responses if response.status_code == 201]
    for response in responses:
        if response.status_code == 409:
            assert_problem(response, 409, "product-id-taken")
    assert (await workers[0].get("/products")).json() == [added]
    contents = await assert_balanced(engine)
    assert (contents.products[7]["name"], contents.products[7]["stock"]) == (added["name"], str(added["stock"]))


async def test_concurrent_products_get_different_ids_even_if_clients_choose_some_of_the_ids(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    own = [workers[i % WORKERS].post("/products", json=mug(id=2 * i + 1)) for i in range(20)]
    assigned = [workers[i % WORKERS].post("/products", json=mug()) for i in range(40)]
    responses = await send_together(request for pair in zip(own, assigned[:20], strict=True) for request in pair)
    own_answers, assigned_answers = responses[::2], [*responses[1::2], *await send_together(assigned[20:])]
    assert count_statuses(assigned_answers) == {201: 40}
    # The server may have assigned the id of a client to another product a moment before.
    assert set(count_statuses(own_answers)) <= {201, 409}
    added = [response.json()["id"] for response in (*own_answers, *assigned_answers) if response.status_code == 201]
    assert len(added) == len(set(added))
    assert (await assert_balanced(engine)).products.keys() == set(added)


async def test_order_with_a_total_is_placed_only_at_that_total(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=1000, price=5)
    prices = [5, 6, 7]

    async def change_prices() -> None:
        for i in range(30):
            response = await workers[i % WORKERS].patch(f"/products/{mugs}", json={"price": prices[i % 3]})
            assert response.status_code == 200

    totals = [2 * prices[i % 3] for i in range(150)]

    async def order_one_by_one(worker: int) -> list[tuple[int, Response]]:
        return [
            (total, await place(workers[worker], (mugs, 1), (mugs, 1), total_price=total))
            for total in totals[worker::WORKERS]
        ]

    *answers, _ = await asyncio.gather(*(order_one_by_one(worker) for worker in range(WORKERS)), change_prices())
    outcomes: Counter[int] = Counter()
    for total, response in (pair for pairs in answers for pair in pairs or []):
        outcomes[response.status_code] += 1
        if response.status_code == 201:
            assert response.json()["total_price"] == total
            assert response.json()["products"] == [{"product_id": mugs, "quantity": 2, "price": total / 2}]
        else:
            problem = assert_problem(response, 409, "price-changed")
            assert problem["total_price"] != total
            assert problem["total_price"] in (10, 12, 14)
    assert outcomes[201] > 0
    assert outcomes[409] > 0
    assert outcomes.total() == 150
    assert len((await assert_balanced(engine)).orders) == outcomes[201]


async def test_no_order_is_placed_after_its_product_was_withdrawn(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=1000)
    withdrawn = asyncio.Event()

    async def order_until_refused(client: AsyncClient) -> list[Response]:
        responses: list[Response] = []
        while not responses or responses[-1].status_code == 201:
            withdrawn_before = withdrawn.is_set()
            responses.append(await place(client, (mugs, 1)))
            assert not (withdrawn_before and responses[-1].status_code == 201)
        return responses

    async def withdraw() -> None:
        while (await stock_of(workers[0], mugs)) > 990:
            pass
        assert (await workers[-1].delete(f"/products/{mugs}")).status_code == 204
        withdrawn.set()

    *answers, _ = await asyncio.gather(*(order_until_refused(client) for client in workers * 5), withdraw())
    placed = 0
    for responses in answers:
        assert responses is not None
        assert_problem(responses[-1], 404, "product-not-found")
        placed += len(responses) - 1
    assert 10 <= placed < 1000
    contents = await assert_balanced(engine)
    assert (parse_whole(contents.products[mugs]["sold"]), len(contents.orders)) == (placed, placed)


async def test_no_order_is_lost_when_redis_forgets_the_scripts_under_load(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs, pots = [await add_product(workers[0], stock=1000) for _ in range(2)]
    for client in workers:
        assert (await place(client, (mugs, 1), (pots, 2))).status_code == 201
    await engine.send("CONFIG", "RESETSTAT")

    async def order(client: AsyncClient, number: int) -> list[Response]:
        return [await place(client, (mugs, 1), (pots, 2), key=f"{number}-{i}") for i in range(10)]

    async def forget_scripts() -> None:
        for _ in range(100):
            await engine.send("SCRIPT", "FLUSH")

    *answers, _ = await asyncio.gather(*(order(workers[i % WORKERS], i) for i in range(20)), forget_scripts())
    assert count_statuses(response for responses in answers for response in responses or []) == {201: 200}
    assert "errorstat_NOSCRIPT" in await engine.send("INFO", "errorstats")  # otherwise the test tested nothing
    contents = await assert_balanced(engine)
    assert (contents.products[mugs]["sold"], contents.products[pots]["sold"]) == ("204", "408")


async def test_pages_show_each_product_once_and_in_order_while_products_are_added(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    before = [await add_product(workers[i % WORKERS]) for i in range(30)]

    async def add() -> list[int]:
        return [await add_product(workers[i % WORKERS]) for i in range(60)]

    page_lists, added = await asyncio.gather(
        asyncio.gather(*(pages(client, "/products?limit=7") for client in workers)), add()
    )
    for found in page_lists:
        listed = [product_id for page in found for product_id in page]
        assert all(len(page) <= 7 for page in found)
        assert listed == sorted(set(listed))
        assert set(before) <= set(listed) <= {*before, *added}
    assert [product_id for page in await pages(workers[0], "/products?limit=7") for product_id in page] == sorted(
        [*before, *added]
    )
    await assert_balanced(engine)


async def test_pages_show_each_order_once_and_highest_id_first_while_orders_are_placed(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=1000)
    before = [(await place(workers[i % WORKERS], (mugs, 1))).json()["id"] for i in range(30)]

    async def order() -> list[int]:
        return [(await place(workers[i % WORKERS], (mugs, 1))).json()["id"] for i in range(60)]

    page_lists, added = await asyncio.gather(
        asyncio.gather(*(pages(client, "/orders?limit=7") for client in workers)), order()
    )
    for found in page_lists:
        listed = [order_id for page in found for order_id in page]
        assert listed == sorted(set(listed), reverse=True)
        assert set(before) <= set(listed) <= {*before, *added}
    everything = [order_id for page in await pages(workers[0], "/orders?limit=7") for order_id in page]
    assert everything == sorted([*before, *added], reverse=True)
    await assert_balanced(engine)


async def test_concurrent_orders_after_a_lost_id_counter_overwrite_no_order_and_are_listed(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    mugs = await add_product(workers[0], stock=10 * ID_BLOCK_SIZE)
    await send_together(place(workers[0], (mugs, 1)) for _ in range(ID_BLOCK_SIZE))
    before = await assert_balanced(engine)
    await engine.send("DEL", keys.order_ids(SHOP))
    # A worker that starts now begins with id 1. Each of twelve concurrent orders finds its id in use.
    concurrent = await send_together(place(workers[1], (mugs, 1)) for _ in range(12))
    later = [await place(workers[1], (mugs, 1)) for _ in range(4 * ID_BLOCK_SIZE)]
    assert count_statuses([*concurrent, *later]) == {201: 12 + 4 * ID_BLOCK_SIZE}
    after = await assert_balanced(engine)
    assert after.orders.items() >= before.orders.items()
    assert len(after.orders) == 5 * ID_BLOCK_SIZE + 12
    # The counter has passed the ids in use, but not by much.
    assert parse_whole(await engine.send("GET", keys.order_ids(SHOP))) < 100 * ID_BLOCK_SIZE
    newest = (await workers[2].get("/orders", params={"limit": 1})).json()
    assert newest == [later[-1].json()]


async def test_shop_is_balanced_after_concurrent_calls_of_every_kind(
    workers: list[AsyncClient], engine: MultiplexedConnection
) -> None:
    products = [await add_product(workers[0], stock=stock, price=price) for stock, price in [(40, 1), (60, 2), (9, 3)]]
    requests: list[Awaitable[Response]] = []
    for i in range(300):
        client, first, second = workers[i % WORKERS], products[i % 3], products[(i // 3) % 3]
        match i % 10:
            case 0:
                requests.append(client.patch(f"/products/{first}", json={"price": 1 + i % 7}))
            case 1:
                requests.append(client.post("/products", json=mug(stock=i)))
            case 2:
                requests.append(client.get("/products"))
            case 3:
                requests.append(client.get("/orders"))
            case 4 if i == 204:
                requests.append(client.delete(f"/products/{products[2]}"))
            case 4 | 5:
                requests.append(place(client, (first, 1), (second, 1), key=f"k-{i % 4}"))
            case _:
                requests.append(place(client, (first, 1 + i % 3), (second, 1), total_price=2 + i % 5))
    responses = await send_together(requests)
    assert set(count_statuses(responses)) <= {200, 201, 204, 404, 409, 422}
    shown = {
        response.json()["id"]: response.json()
        for response in responses
        if response.status_code == 201 and response.headers["location"].startswith("/orders/")
    }
    contents = await assert_balanced(engine)
    assert shown
    assert contents.orders.keys() == shown.keys()
    for order_id, order in contents.orders.items():
        assert cents(order["total_price"]) == round(shown[order_id]["total_price"] * 100)
