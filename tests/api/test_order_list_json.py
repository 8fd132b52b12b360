"""GET /orders shows each order as GET /orders/{id} does, whatever is in Redis."""

import asyncio
from itertools import chain

import pytest
from httpx2 import AsyncClient
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from service.domain.money import format_cents
from service.domain.times import Milliseconds
from service.storage import keys
from service.storage.sender import CommandSender
from tests.support.fake_redis import FakeRedis
from tests.support.orders import order_hash, orders, prices, times
from tests.support.shop import SHOP, add_product, http_client, make_store, place

FAR_TIMES = st.integers(10**13, 10**14).map(Milliseconds)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LINES_BY_HAND = st.sampled_from(["7: 2 x 5", "007: 02 x 1.5\n8: 1 x 0", "1: 1 x 01.50"])
"""Order lines in a form that no script writes: a person may have changed them."""


@st.composite
def hashes(draw: st.DrawFn) -> dict[str, str]:
    """Return the hash of a random order that the API shows."""
    order = draw(orders("pending", "completed", expires_at=FAR_TIMES))
    fields: dict[str, object] = {"reference": draw(st.none() | TEXTS), "customer": draw(st.none() | TEXTS)}
    if order.status == "completed":
        order = order._replace(expires_at=draw(st.none() | FAR_TIMES), completed_at=draw(st.none() | times))
    if draw(st.booleans()):
        units = {line.product_id: draw(st.integers(0, line.quantity)) for line in order.lines}
        fields["returned"] = "\n".join(f"{product_id}: {number}" for product_id, number in units.items())
        fields["refunded"] = format_cents(draw(prices))
    if draw(st.integers(0, 3)) == 0:
        fields["products"] = draw(LINES_BY_HAND)
    return order_hash(order, **fields)


# Not shrunk: to look for the shortest of these lists takes more than a minute.
@settings(deadline=None, derandomize=True, max_examples=30, phases=[Phase.explicit, Phase.generate])
@given(st.lists(hashes(), min_size=4, max_size=8))
def test_a_list_shows_each_order_as_it_is_shown_alone(found: list[dict[str, str]]) -> None:
    async def compare() -> None:
        redis = FakeRedis()
        for order_id, stored in enumerate(found, 1):
            fields = chain.from_iterable({**stored, "id": str(order_id)}.items())
            await redis.send("HSET", keys.order(SHOP, order_id), *fields)
        await redis.send("SET", keys.order_ids(SHOP), len(found))
        async with http_client(make_store(redis)) as client:
            alone = [(await client.get(f"/orders/{order_id}")).text for order_id in range(len(found), 0, -1)]
            assert (await client.get("/orders")).text == f"[{','.join(map(str.rstrip, alone))}]\n"

    asyncio.run(compare())


async def test_an_order_whose_lines_are_gone_is_not_listed(client: AsyncClient, redis: CommandSender) -> None:
    mugs = await add_product(client)
    first, second, third = [(await place(client, (mugs, 1), reference="r", customer="c")).json() for _ in range(3)]
    await redis.send("HDEL", keys.order(SHOP, second["id"]), "products")
    assert (await client.get(f"/orders/{second['id']}")).status_code == 404
    for query in ("", "?status=completed", "?customer=c", "?reference=r"):
        assert (await client.get(f"/orders{query}")).json() == [third, first]


@pytest.mark.parametrize(
    ("field", "value"), [("products", "7: 2"), ("total_price", "x"), ("created_at", "x"), ("returned", "7")]
)
async def test_a_damaged_order_causes_the_same_error_in_a_list_as_alone(
    client: AsyncClient, redis: CommandSender, field: str, value: str
) -> None:
    order = (await place(client, (await add_product(client), 1))).json()
    await redis.send("HSET", keys.order(SHOP, order["id"]), field, value)
    for path in (f"/orders/{order['id']}", "/orders"):
        response = await client.get(path)
        assert (response.status_code, response.json()["type"]) == (500, "/problems/internal-error")
