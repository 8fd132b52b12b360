"""Query parameters that are refused."""

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_problem, assert_query_errors
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, mug, place


async def test_query_with_too_many_parameters_is_refused_without_listing_them(client: AsyncClient) -> None:
    response = await client.get("/orders?" + "&".join(f"p{number}=1" for number in range(1000)))
    assert_problem(response, 422, "invalid-request")
    assert len(response.content) < 1000


@pytest.mark.parametrize("query", ["customer=%ff", "reference=%C3%28", "%ff=1", "limit=%ed%a0%80"])
async def test_query_that_is_not_utf_8_is_refused(client: AsyncClient, query: str) -> None:
    """Otherwise all such customers would be the same one, whose name is a replacement character."""
    problem = assert_problem(await client.get(f"/orders?{query}"), 422, "invalid-request")
    assert problem["detail"] == "The query is not UTF-8."


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/orders?status=pending"),
        ("POST", "/products?id=7"),
        ("GET", "/products/1?limit=1"),
        ("PATCH", "/products/1?price=5"),
        ("DELETE", "/products/1?quantity=1"),
        ("POST", "/products/1/stock?change=1"),
        ("GET", "/orders/1?status=pending"),
        ("DELETE", "/orders/1?reason=late"),
        ("POST", "/orders/1/complete?at=once"),
    ],
)
async def test_query_parameter_of_a_call_without_parameters_is_refused(
    client: AsyncClient, redis: CommandSender, method: str, path: str
) -> None:
    """Otherwise `POST /orders?status=pending` would sell units that its client wants to hold."""
    await add_product(client, id=1)
    await place(client, (1, 1), status="pending")
    bodies = {"/orders": {"products": [{"product_id": 1, "quantity": 1}]}, "/products": mug()}
    async with nothing_changes(redis):
        response = await client.request(method, path, json=bodies.get(path.partition("?")[0], {}))
    problem = assert_problem(response, 422, "invalid-request")
    assert [error["in"] for error in problem["errors"]] == ["query"]


async def test_a_number_with_too_many_digits_is_not_called_another_thing_than_a_number(client: AsyncClient) -> None:
    response = await client.get("/orders?before=99999999999999999999")
    [error] = assert_problem(response, 422, "invalid-request")["errors"]
    assert error["detail"] == "Input should be a whole number of up to 16 decimal digits"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        *((f"limit={value}", "#/limit") for value in ("0", "1001", "-1", "+1", "1_0", "abc", "", "1.0", "%31%20")),
        *((f"limit={value}", "#/limit") for value in ("1e2", "\u0661", "9" * 5000, "true")),
        *((f"after={value}", "#/after") for value in ("-1", "abc", "", "1_0", str(2**53))),
        *((f"in_stock={value}", "#/in_stock") for value in ("1", "True", "yes", "", "null")),
        *((f"{name}=1", f"#/{name}") for name in ("Limit", "before", "limits")),
        ("=1", "#/"),
        ("a%2Fb=1", "#/a~1b"),
        ("a~b=1", "#/a~0b"),
        ("limit=1&limit=1", "#/limit"),
        ("limit=1&after=2&limit=2", "#/limit"),
        ("nothing=1&nothing=2", "#/nothing"),
    ],
)
async def test_invalid_query_of_products_is_refused(client: AsyncClient, query: str, pointer: str) -> None:
    response = await client.get(f"/products?{query}")
    assert_query_errors(response, pointer)


@pytest.mark.parametrize(
    "query", ["limit=0&after=x&in_stock=1&colour=red", "limit=1&limit=2&after=x&in_stock=1&colour=red"]
)
async def test_all_field_errors_of_a_query_are_listed_together(client: AsyncClient, query: str) -> None:
    assert_query_errors(await client.get(f"/products?{query}"), "#/limit", "#/after", "#/in_stock", "#/colour")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        *((f"limit={value}", "#/limit") for value in ("0", "1001", "-1", "1_0", "abc", "", "%201")),
        *((f"before={value}", "#/before") for value in ("-1", "abc", "", "1.0", str(2**53))),
        *((f"status={value}", "#/status") for value in ("shipped", "", "Completed", "completed%20", "true")),
        ("after=1", "#/after"),
        ("in_stock=true", "#/in_stock"),
        ("before=3&before=3", "#/before"),
        ("status=completed&status=completed", "#/status"),
    ],
)
async def test_invalid_query_of_orders_is_refused(client: AsyncClient, query: str, pointer: str) -> None:
    assert_query_errors(await client.get(f"/orders?{query}"), pointer)


@pytest.mark.parametrize("status", ["cancelled", "expired", "overdue", "Pending", "", "pending,completed"])
async def test_list_of_another_status_than_pending_or_completed_is_refused(client: AsyncClient, status: str) -> None:
    assert_query_errors(await client.get(f"/orders?status={status}"), "#/status")
